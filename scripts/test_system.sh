#!/bin/sh
# Install the Debian packages that the tests can use: Chromium for the browser tests, PostgreSQL for
# the store, strace for disks that fail, wrk for `make bench`, a Docker engine (the tests start it) and a
# registry of images. Elsewhere, or without root, it says what will be skipped.
set -eu
missing=""
command -v chromium >/dev/null 2>&1 || missing="$missing chromium fonts-liberation"
command -v strace >/dev/null 2>&1 || missing="$missing strace"
command -v wrk >/dev/null 2>&1 || missing="$missing wrk"
command -v pg_ctl >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/pg_ctl >/dev/null 2>&1 ||
  missing="$missing postgresql"
# docker.io depends on containerd, runc, iptables and tini; what it recommends (apparmor, cgroupfs-mount, git)
# no test needs.
{ command -v dockerd && command -v docker; } >/dev/null 2>&1 || missing="$missing docker.io"
command -v docker-registry >/dev/null 2>&1 || missing="$missing docker-registry"
if [ -z "$missing" ]; then
  echo "test-system: everything is there"
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "test-system: not root on a Debian system; tests that need these will be skipped:$missing"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# From Debian 13 on the command `docker` is a package of its own.
if ! command -v docker >/dev/null 2>&1 && apt-cache show docker-cli >/dev/null 2>&1; then
  missing="$missing docker-cli"
fi
# shellcheck disable=SC2086  # a list of packages
apt-get install -y -qq --no-install-recommends $missing >/dev/null
# Debian's service of the registry is open to the network; the tests start one of their own on 127.0.0.1.
case "$missing" in
  *docker-registry*) systemctl disable --now --quiet docker-registry 2>/dev/null || true ;;
esac
echo "test-system: installed$missing"

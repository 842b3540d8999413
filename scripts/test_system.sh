#!/bin/sh
# Install the Debian packages that the tests can use: Chromium for the browser tests, PostgreSQL for
# the store, strace for disks that fail, wrk for `make bench`. Elsewhere, or without root, it says what will be skipped.
set -eu
missing=""
command -v chromium >/dev/null 2>&1 || missing="$missing chromium fonts-liberation"
command -v strace >/dev/null 2>&1 || missing="$missing strace"
command -v wrk >/dev/null 2>&1 || missing="$missing wrk"
command -v pg_ctl >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/pg_ctl >/dev/null 2>&1 ||
  missing="$missing postgresql"
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
# shellcheck disable=SC2086  # a list of packages
apt-get install -y -qq --no-install-recommends $missing >/dev/null
echo "test-system: installed$missing"

#!/bin/sh
# Install the Debian packages that the tests can use: Chromium for the browser tests.
# Elsewhere, or without root, it says what will be skipped.
set -eu
if command -v chromium >/dev/null 2>&1; then
  echo "test-system: chromium is there"
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "test-system: not root on a Debian system; the browser tests will be skipped"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium fonts-liberation >/dev/null
echo "test-system: chromium installed"

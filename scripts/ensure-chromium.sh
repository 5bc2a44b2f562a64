#!/usr/bin/env bash
# The tests of pages need Chromium: installs it where it is missing. CHROMIUM names one that stands elsewhere.
set -euo pipefail

if [ -x "${CHROMIUM:-/usr/bin/chromium}" ]; then
    exit 0
fi
if [ -n "${CHROMIUM:-}" ] || ! command -v apt-get >/dev/null; then
    echo 'The tests of pages need Chromium at /usr/bin/chromium, or where CHROMIUM says. Install it and try again.' >&2
    exit 1
fi
sudo=''
[ "$(id -u)" -eq 0 ] || sudo='sudo'
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq chromium

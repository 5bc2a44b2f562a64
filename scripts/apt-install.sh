#!/usr/bin/env bash
# apt-install.sh WHAT PACKAGE...: installs Debian packages, or says what is missing where there is no apt.
set -euo pipefail

what="$1"
shift
if ! command -v apt-get >/dev/null; then
    echo "$what is missing. Install it and try again." >&2
    exit 1
fi
sudo=''
[ "$(id -u)" -eq 0 ] || sudo='sudo'
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "$@"

#!/usr/bin/env bash
# apt-install.sh NAME PACKAGE...: installs Debian packages, or reports NAME as missing on systems without apt.
set -euo pipefail

name="$1"
shift
if ! command -v apt-get >/dev/null; then
    echo "$name is not installed, and apt-get is not available. Install it, then retry." >&2
    exit 1
fi
sudo=''
[ "$(id -u)" -eq 0 ] || sudo='sudo'
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "$@"

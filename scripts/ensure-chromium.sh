#!/usr/bin/env bash
# Installs Chromium, which the browser tests need, if it is missing. CHROMIUM is the path of another installation.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${CHROMIUM:-}" ] && [ ! -x "$CHROMIUM" ]; then
    echo "CHROMIUM is set to $CHROMIUM, which is not an executable file." >&2
    exit 1
fi
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] ||
    scripts/apt-install.sh 'Chromium (/usr/bin/chromium, or the path in CHROMIUM)' chromium

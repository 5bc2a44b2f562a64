#!/usr/bin/env bash
# The tests of pages need Chromium: installs it where it is missing. CHROMIUM names one that stands elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${CHROMIUM:-}" ] && [ ! -x "$CHROMIUM" ]; then
    echo "CHROMIUM names $CHROMIUM, and there is no program." >&2
    exit 1
fi
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] ||
    scripts/apt-install.sh 'Chromium (at /usr/bin/chromium, or where CHROMIUM says)' chromium

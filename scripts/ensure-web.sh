#!/usr/bin/env bash
# Installs what the packages under web/ need, as their lock file says, unless that is there already.
set -euo pipefail
cd "$(dirname "$0")/../web"

if ! command -v npm >/dev/null || ! node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null; then
    echo 'The TypeScript packages need Node 20.19 or later, with npm. Install it and try again.' >&2
    exit 1
fi
if ! cmp -s package-lock.json node_modules/.installed-lock.json; then
    npm ci
    cp package-lock.json node_modules/.installed-lock.json
fi

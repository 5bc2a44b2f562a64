#!/usr/bin/env bash
# Installs the npm dependencies of the packages under web/ unless they match package-lock.json already.
set -euo pipefail
cd "$(dirname "$0")/../web"

if ! command -v npm >/dev/null || ! node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null; then
    echo 'The TypeScript packages need Node.js 20.19 or later with npm. Install it, then retry.' >&2
    exit 1
fi
if ! cmp -s package-lock.json node_modules/.installed-lock.json; then
    npm ci
    cp package-lock.json node_modules/.installed-lock.json
fi

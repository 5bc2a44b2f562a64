#!/usr/bin/env bash
# Installs the spell checker `typos` in target/ if it is missing, and prints the path of the program.
set -euo pipefail
cd "$(dirname "$0")/.."

version='1.52.0'
venv="${CARGO_TARGET_DIR:-$PWD/target}/typos-$version"
if [ ! -x "$venv/bin/typos" ]; then
    scripts/ensure-python.sh >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "typos==$version" >&2
fi
echo "$venv/bin/typos"

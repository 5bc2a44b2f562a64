#!/usr/bin/env bash
# Installs the OpenFeature provider for Python, which some tests use, into a virtual environment.
set -euo pipefail
cd "$(dirname "$0")/.."

requirements='web/tests/openfeature/requirements.txt'
venv="${CARGO_TARGET_DIR:-target}/openfeature-venv"

if cmp -s "$requirements" "$venv/requirements.txt"; then
    exit 0
fi
scripts/ensure-python.sh
rm -rf "$venv"
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
cp "$requirements" "$venv/requirements.txt"

#!/usr/bin/env bash
# Installs Python 3 with venv, which some tests need, if it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

python3 -m venv --help >/dev/null 2>&1 && python3 -c 'import ensurepip' 2>/dev/null ||
    scripts/apt-install.sh 'Python 3 with venv' python3 python3-venv

#!/usr/bin/env bash
# The layers point one way; see ARCHITECTURE.md.
set -euo pipefail
cd "$(dirname "$0")/.."

# refuse PACKAGE PATTERN: PACKAGE must not depend on anything whose name matches.
refuse() {
    if cargo tree --quiet --package "$1" --edges normal --prefix none | awk '{print $1}' | sort -u | grep -xE "$2"; then
        echo "$1 must not depend on these" >&2
        exit 1
    fi
}
refuse flags-domain 'tokio|diesel.*|actix.*|flags-(store|service|api)|metrics|rand|getrandom'
refuse flags-store 'actix.*|flags-(service|api)'
refuse flags-service 'actix.*|flags-api'
refuse cleanup-worker 'actix.*|flags-api'
echo 'layers: ok'

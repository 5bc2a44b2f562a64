#!/usr/bin/env bash
# Checks that crates depend on each other only in the direction that ARCHITECTURE.md describes.
set -euo pipefail
cd "$(dirname "$0")/.."

# forbid PACKAGE PATTERN: fails if PACKAGE depends on a crate with a matching name.
forbid() {
    if cargo tree --quiet --package "$1" --edges normal --prefix none | awk '{print $1}' | sort -u | grep -xE "$2"; then
        echo "$1 must not depend on the crates above" >&2
        exit 1
    fi
}
forbid flags-domain 'tokio|diesel.*|actix.*|flags-(store|service|api)|metrics|rand|getrandom'
forbid flags-store 'actix.*|flags-(service|api)'
forbid flags-service 'actix.*|flags-api'
forbid cleanup-worker 'actix.*|flags-api'
echo 'layers: ok'

#!/usr/bin/env bash
# Checks that crates depend on each other only in the direction that ARCHITECTURE.md describes, and that the replica and
# evaluation do not depend on the database.
set -euo pipefail
cd "$(dirname "$0")/.."

# forbid PACKAGE PATTERN: fails if PACKAGE depends on a crate with a matching name.
forbid() {
    if cargo tree --quiet --package "$1" --edges normal --prefix none | awk '{print $1}' | sort -u | grep -xE "$2"; then
        echo "$1 must not depend on the crates above" >&2
        exit 1
    fi
}
forbid flags-domain 'tokio|diesel.*|actix.*|flags-(store|service|startup|api)|metrics|rand|getrandom'
forbid flags-store 'actix.*|flags-(service|startup|api)'
forbid flags-service 'actix.*|flags-(api|startup)|tracing-subscriber'
forbid flags-startup 'actix.*|flags-(service|api)'
forbid cleanup-worker 'actix.*|flags-api'

cd crates/flags-service/src
if grep -rnE 'flags_store|diesel' replica notifier.rs evaluation.rs stream_position.rs; then
    echo 'the replica and evaluation must not depend on the database; convert rows in change_feed or user_source' >&2
    exit 1
fi
echo 'layers: ok'

#!/usr/bin/env bash
# Runs the demo and the development server of the admin UI until Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."

demo=''
stop() {
    trap - INT TERM EXIT
    [ -z "$demo" ] || kill -TERM "$demo" 2>/dev/null || true
    wait
}
trap stop EXIT
trap 'exit 0' INT TERM

scripts/run-demo.sh &
demo=$!
npm --prefix web/admin run dev

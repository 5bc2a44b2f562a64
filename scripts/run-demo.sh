#!/usr/bin/env bash
# Runs the server and the worker with demo data until Ctrl-C. Every run uses a new SQLite file and deletes it at the
# end.
set -euo pipefail
cd "$(dirname "$0")/.."

bind="${FLAGS_BIND:-127.0.0.1:8080}"
bin="${CARGO_TARGET_DIR:-target}/debug"
folder="$(mktemp -d)"
url="sqlite://$folder/flags.db"
server='' worker=''

stop() {
    trap - INT TERM EXIT
    for pid in $worker $server; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    wait
    rm -rf "$folder"
    echo 'stopped'
}
trap stop EXIT
trap 'exit 0' INT TERM

guide="$("$bin/server" demo --database-url "$url" --bind "$bind")"
# `set -m` starts each process in its own process group, so that Ctrl-C signals only this script, which then stops the
# worker before the server.
set -m
"$bin/server" --database-url "$url" --bind "$bind" >"$folder/server.out" &
server=$!
set +m
until grep -q '^listening on' "$folder/server.out"; do
    kill -0 "$server" 2>/dev/null || exit 1
    sleep 0.1
done
set -m
"$bin/cleanup-worker" --database-url "$url" --interval 5s &
worker=$!
set +m
printf '\n%s\n\nRunning on http://%s with a new database (%s). Ctrl-C stops server and worker.\n' "$guide" "$bind" "$url"
wait -n "$server" "$worker" || true
echo 'the server or the worker has exited unexpectedly' >&2
exit 1

#!/usr/bin/env bash
# Sends the server what the OpenAPI document allows, and what it does not, as nobody, viewer, application and admin: nothing
# may end in a 5xx, and every answer must be as the document says.
#
# fuzz-api.sh [SECONDS]: so long in all (120). FUZZ_DETERMINISTIC=1: the same requests each time.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds="${1:-120}"
bin="${CARGO_TARGET_DIR:-target}/debug"
venv="${CARGO_TARGET_DIR:-target}/fuzz-venv"

if [ ! -x "$venv/bin/schemathesis" ]; then
    scripts/ensure-python.sh
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check 'schemathesis>=4.32,<5'
fi

folder="$(mktemp -d)"
url="sqlite://$folder/flags.db"
server=''
stop() {
    [ -z "$server" ] || kill -TERM "$server" 2>/dev/null || true
    wait
    rm -rf "$folder"
}
trap stop EXIT

"$bin/server" demo --database-url "$url" >"$folder/guide"
token() { "$bin/server" token create --database-url "$url" --name "fuzz: $*" "$@"; }
admin="$(token --role admin)"
viewer="$(token --role viewer --user vera@example.com)"
application="$(token --scope evaluate)"
# Without limits: one caller sends all that it can. The log must hold no error but of requests that are none.
"$bin/server" --database-url "$url" --bind 127.0.0.1:0 --rate-limit 0 --evaluation-rate-limit 0 --anonymous-rate-limit 0 \
    >"$folder/server.out" 2>"$folder/server.log" &
server=$!
until grep -q '^listening on' "$folder/server.out"; do
    kill -0 "$server" 2>/dev/null || { cat "$folder/server.log" >&2; exit 1; }
    sleep 0.1
done
base="$(sed -n 's/^listening on //p' "$folder/server.out")"

generation=(--generation-database none)
[ -z "${FUZZ_DETERMINISTIC:-}" ] || generation=(--generation-deterministic)
failed=0
# fuzz NAME SECONDS OPTIONS…: streams have no end, so they are left to other tests.
fuzz() {
    local name="$1" time="$2"
    shift 2
    echo "== as $name, $time s"
    "$venv/bin/schemathesis" --config-file tests/fuzz/schemathesis.toml run docs/openapi.json --url "$base" \
        --checks all --max-time "$time" --continue-on-failure --no-color "${generation[@]}" \
        --exclude-operation-id stream_my_flags --exclude-operation-id stream_changes \
        --exclude-operation-id stream_evaluations "$@" || failed=1
}
fuzz nobody $((seconds / 6))
fuzz viewer $((seconds / 4)) --header "Authorization: Bearer $viewer"
fuzz application $((seconds / 12)) --header "Authorization: Bearer $application" \
    --include-operation-id evaluate_flag --include-operation-id evaluate_flags
# What makes tokens void comes last: it may find its own.
fuzz admin $((seconds / 2)) --header "Authorization: Bearer $admin" \
    --exclude-operation-id revoke_api_token --exclude-operation-id rotate_api_token
fuzz 'admin, of tokens' $((seconds / 12)) --header "Authorization: Bearer $admin" \
    --include-operation-id revoke_api_token --include-operation-id rotate_api_token

if grep -E ' ERROR .*(request failed|panicked)' "$folder/server.log" >&2; then
    failed=1
fi
if ! curl --silent --fail --output /dev/null "$base/readyz"; then
    echo 'the server does not answer any more' >&2
    failed=1
fi
[ "$failed" -eq 0 ] && echo 'fuzz: ok'
exit "$failed"

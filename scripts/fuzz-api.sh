#!/usr/bin/env bash
# Sends requests that are valid and invalid according to the OpenAPI document, with different permissions: anonymous,
# viewer, application and admin. Fails if a response has a 5xx status or does not conform to the document.
#
# fuzz-api.sh [SECONDS]: SECONDS is the total duration (default 120).
# FUZZ_DETERMINISTIC=1: send the same requests in every run.
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
# Disable the rate limits, because the fuzzer sends as many requests as possible. The server's log is checked at the
# end.
"$bin/server" --database-url "$url" --bind 127.0.0.1:0 --rate-limit 0 --evaluation-rate-limit 0 --anonymous-rate-limit 0 \
    >"$folder/server.out" 2>"$folder/server.log" &
server=$!
until grep -q '^listening on' "$folder/server.out"; do
    kill -0 "$server" 2>/dev/null || { cat "$folder/server.log" >&2; exit 1; }
    sleep 0.1
done
base="$(sed -n 's/^listening on \([^ ]*\).*/\1/p' "$folder/server.out")"

generation=(--generation-database none)
[ -z "${FUZZ_DETERMINISTIC:-}" ] || generation=(--generation-deterministic)
failed=0
# fuzz NAME SECONDS OPTIONS…: runs the fuzzer. Excludes event streams, because their responses do not end.
fuzz() {
    local name="$1" time="$2"
    shift 2
    echo "== fuzzing as $name for $time s"
    "$venv/bin/schemathesis" --config-file tests/fuzz/schemathesis.toml run docs/openapi.json --url "$base" \
        --checks all --max-time "$time" --continue-on-failure --no-color "${generation[@]}" \
        --exclude-operation-id stream_my_flags --exclude-operation-id stream_changes \
        --exclude-operation-id stream_evaluations "$@" || failed=1
}
fuzz anonymous $((seconds / 6))
fuzz viewer $((seconds / 4)) --header "Authorization: Bearer $viewer"
fuzz application $((seconds / 12)) --header "Authorization: Bearer $application" \
    --include-operation-id evaluate_flag --include-operation-id evaluate_flags
# Revoke and rotate tokens last, because the fuzzer may invalidate its own token.
fuzz admin $((seconds / 2)) --header "Authorization: Bearer $admin" \
    --exclude-operation-id revoke_api_token --exclude-operation-id rotate_api_token
fuzz 'admin (token revocation and rotation)' $((seconds / 12)) --header "Authorization: Bearer $admin" \
    --include-operation-id revoke_api_token --include-operation-id rotate_api_token

if grep -E ' ERROR .*(request failed|panicked)' "$folder/server.log" >&2; then
    failed=1
fi
if ! curl --silent --fail --output /dev/null "$base/readyz"; then
    echo 'the server is no longer ready' >&2
    failed=1
fi
[ "$failed" -eq 0 ] && echo 'fuzz: ok'
exit "$failed"

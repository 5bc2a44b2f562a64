# Feature flags with user overrides: the index of commands. `just` alone lists them.

set shell := ["bash", "-euo", "pipefail", "-c"]

# List the commands
default:
    @just --list --unsorted

# Start server and worker with demo data on SQLite; Ctrl-C stops both
run:
    cargo build --bins
    scripts/run-demo.sh

# Run all tests on both databases and in a browser (installs PostgreSQL, Chromium and Python by apt where they are missing)
test: postgres chromium web openfeature
    cargo build --workspace --bins
    cargo test --workspace --doc
    cargo test --workspace --lib --bins
    cargo test -p flags-domain --test '*'
    cargo test -p flags-tests --test chaos -- --selection
    npm --prefix web run build
    npm --prefix web test
    cargo test -p flags-tests --test it

# Everything a change must pass: formatting, lints, documentation, tests
ci: check test

# Formatting, lints, documentation and sizes
check: web
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy -p flags-tests --test chaos --test search -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
    scripts/check-layers.sh
    npm --prefix web run check

# Measure how much of the code the tests run (installs what it needs); fails below 85 % of lines
coverage: postgres
    scripts/coverage.sh

# Measure evaluation in nanoseconds and the server in requests
bench:
    cargo bench -p flags-domain --bench resolve
    cargo bench -p flags-api --bench me

# Measure evaluation alone, and beside the evaluators of other systems in one run
bench-domain:
    cargo bench -p flags-domain --bench resolve
    cargo run --release --manifest-path benchmarks/evaluators/Cargo.toml --target-dir target/evaluators
    cargo run --release --manifest-path benchmarks/evaluators/Cargo.toml --target-dir target/evaluators --bin allocations

# Measure searches for users beside a million of them, on both databases
bench-search *args: postgres
    cargo test --release -q -p flags-tests --test search -- {{ args }}

# Write the OpenAPI document after the API has changed
openapi:
    cargo run --quiet --bin server -- openapi > docs/openapi.json

# Write the document of permissions after their table has changed
permissions:
    cargo run --quiet -p flags-tests --example permissions > docs/permissions.md

# Send the API all that its OpenAPI document allows and forbids, as nobody, viewer, application and admin, for so many seconds
fuzz-api seconds='120':
    cargo build --bins
    scripts/fuzz-api.sh {{ seconds }}

# Break things on purpose and check every promise: all cases, or `just chaos writers --seed 7`
chaos *args: postgres
    cargo build --release --bins
    cargo test --release -q -p flags-tests --test chaos -- {{ args }}

# Run the tests of the TypeScript packages alone
test-web: chromium web openfeature
    cargo build --bins
    npm --prefix web run build
    npm --prefix web test

# Format everything
fmt: web
    cargo fmt --all
    npm --prefix web run fmt

# Install PostgreSQL by apt if its server programs are missing
[private]
postgres:
    scripts/ensure-postgres.sh

# Install Chromium by apt if it is missing
[private]
chromium:
    scripts/ensure-chromium.sh

# Install what the packages under web/ need
[private]
web:
    scripts/ensure-web.sh

# Install OpenFeature's provider for Python
[private]
openfeature:
    scripts/ensure-openfeature.sh

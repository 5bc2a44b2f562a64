# Commands for development. `just` without arguments lists them.

set shell := ["bash", "-euo", "pipefail", "-c"]

# List all commands
default:
    @just --list --unsorted

# Run the server and the worker with demo data on SQLite; stop with Ctrl-C
run: web-admin
    cargo build --bins
    scripts/run-demo.sh

# Build the release binaries, which contain the admin UI
build: web-admin
    FLAGS_UI=required cargo build --release --bins

# Build the admin UI into web/admin/dist
web-admin: web
    npm --prefix web run build

# Run the demo, and the admin UI with live reload on http://127.0.0.1:5173; stop with Ctrl-C
dev: web
    npm --prefix web run build --workspace sdk
    cargo build --bins
    scripts/run-dev.sh

# Run all tests on both databases and in a browser (installs missing PostgreSQL, Chromium and Python with apt)
test: postgres chromium web-admin openfeature
    cargo build --workspace --bins
    cargo test --workspace --doc
    cargo test --workspace --lib --bins
    cargo test -p flags-domain --test '*'
    cargo test -p flags-tests --test chaos -- --selection
    npm --prefix web test
    cargo test -p flags-tests --test it

# Run all checks and tests that a change must pass
ci: check test

# Check formatting, lints, documentation, crate dependencies, import cycles and the TypeScript packages
check: web
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy -p flags-tests --test chaos --test search -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
    scripts/check-layers.sh
    scripts/ensure-python.sh
    scripts/import-graph.py
    scripts/check-language.sh
    npm --prefix web run check

# Measure line coverage of all tests (installs missing tools); fails below 85 %
coverage: postgres
    scripts/coverage.sh

# Benchmark flag evaluation, the index of overrides and the HTTP API
bench:
    cargo bench -p flags-domain --bench resolve
    cargo bench -p flags-service --bench override_index
    cargo bench -p flags-api --bench me

# Benchmark flag evaluation, and compare it with the evaluators of other systems
bench-domain:
    cargo bench -p flags-domain --bench resolve
    cargo run --release --manifest-path benchmarks/evaluators/Cargo.toml --target-dir target/evaluators
    cargo run --release --manifest-path benchmarks/evaluators/Cargo.toml --target-dir target/evaluators --bin allocations

# Benchmark user search with a million users on both databases
bench-search *args: postgres
    cargo test --release -q -p flags-tests --test search -- {{ args }}

# Regenerate docs/openapi.json
openapi:
    cargo run --quiet --bin server -- openapi > target/openapi.json
    mv target/openapi.json docs/openapi.json

# Regenerate docs/permissions.md
permissions:
    cargo run --quiet -p flags-tests --example permissions > target/permissions.md
    mv target/permissions.md docs/permissions.md

# Fuzz the HTTP API with valid and invalid requests for the given number of seconds
fuzz-api seconds='120':
    cargo build --bins
    scripts/fuzz-api.sh {{ seconds }}

# Run fault-injection tests: all cases, or a selection such as `just chaos writers --seed 7`
chaos *args: postgres
    cargo build --release --bins
    cargo test --release -q -p flags-tests --test chaos -- {{ args }}

# Run only the tests of the TypeScript packages
test-web: chromium web-admin openfeature
    cargo build --bins
    npm --prefix web test

# Format Rust and TypeScript code
fmt: web
    cargo fmt --all
    npm --prefix web run fmt

# Install PostgreSQL with apt if its server programs are missing
[private]
postgres:
    scripts/ensure-postgres.sh

# Install Chromium with apt if it is missing
[private]
chromium:
    scripts/ensure-chromium.sh

# Install the npm dependencies of the packages under web/
[private]
web:
    scripts/ensure-web.sh

# Install the OpenFeature provider for Python
[private]
openfeature:
    scripts/ensure-openfeature.sh

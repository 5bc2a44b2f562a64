#!/usr/bin/env bash
# coverage.sh [PERCENT]: measures line coverage of all crates by all tests, including the processes that tests start.
# Fails below PERCENT (default 85).
set -euo pipefail
cd "$(dirname "$0")/.."

command -v llvm-cov-22 >/dev/null || scripts/apt-install.sh 'LLVM 22 (llvm-cov-22)' llvm-22
cargo llvm-cov --version >/dev/null 2>&1 || cargo install cargo-llvm-cov --locked
export LLVM_COV=/usr/bin/llvm-cov-22 LLVM_PROFDATA=/usr/bin/llvm-profdata-22

eval "$(cargo llvm-cov show-env --sh 2>/dev/null || cargo llvm-cov show-env --export-prefix)"
cargo llvm-cov clean --workspace
cargo build --workspace --bins
cargo test --workspace
cargo llvm-cov report --ignore-filename-regex '(^|/)tests/' --fail-under-lines "${1:-85}"

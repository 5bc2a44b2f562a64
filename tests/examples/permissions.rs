//! Prints `docs/permissions.md`. Run it with `just permissions`.
#![allow(clippy::print_stdout, reason = "a command-line program")]

fn main() {
    print!("{}", flags_tests::permissions::PermissionTable::read().to_markdown());
}

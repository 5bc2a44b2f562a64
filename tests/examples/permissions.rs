//! Prints the document of permissions: `just permissions`.
#![allow(clippy::print_stdout, reason = "that is what it is for")]

fn main() {
    print!("{}", flags_tests::permissions::PermissionTable::read().to_markdown());
}

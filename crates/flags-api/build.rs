//! Rebuilds the crate when the built admin UI changes, and optionally requires that it has been built.

use std::{env, fs, path::Path, process::ExitCode};

const UI_FOLDER: &str = "../../web/admin/dist";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    // Debug builds read the files from disk, so they need not be built again.
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rerun-if-changed={UI_FOLDER}");
    }
    println!("cargo::rerun-if-env-changed=FLAGS_UI");
    // The embedding macro requires the folder. It is missing if `dist` was deleted.
    if let Err(error) = fs::create_dir_all(UI_FOLDER) {
        println!("cargo::error=cannot create {UI_FOLDER}: {error}");
        return ExitCode::FAILURE;
    }
    let is_required = env::var("FLAGS_UI").is_ok_and(|value| value == "required");
    if is_required && !Path::new(UI_FOLDER).join("index.html").exists() {
        println!("cargo::error=FLAGS_UI=required, but the admin UI is not built; run `just web-admin` first");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

//! The committed OpenAPI document is what the code says.

use std::{fs, path::PathBuf};

#[test]
fn the_committed_document_is_up_to_date() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let current = flags_api::openapi().to_pretty_json().unwrap();
    assert!(committed.trim_end() == current, "docs/openapi.json has drifted; run `just openapi` and commit it");
}

#[test]
fn every_operation_has_a_name_a_tag_and_errors() {
    let document = serde_json::to_value(flags_api::openapi()).unwrap();
    let mut names = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no name"));
            assert!(names.insert(name.to_owned()), "{name} stands twice");
            assert!(operation["tags"][0].is_string() && operation["summary"].is_string(), "{name}");
            assert!(operation["responses"]["default"].is_object(), "{name} says nothing of errors");
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = serde_json::to_value(flags_api::openapi()).unwrap();
    let text = document.to_string();
    for part in text.split("\"$ref\":\"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

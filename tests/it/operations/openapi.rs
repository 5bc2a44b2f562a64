//! The OpenAPI document: drift, completeness and references.

use std::{fs, path::PathBuf};

#[test]
fn committed_openapi_document_is_up_to_date() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let current = flags_api::openapi().to_pretty_json().unwrap();
    assert!(committed.trim_end() == current, "docs/openapi.json is outdated; run `just openapi` and commit it");
}

#[test]
fn operations_have_unique_ids_tags_summaries_and_error_responses() {
    let document = serde_json::to_value(flags_api::openapi()).unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no operation id"));
            assert!(ids.insert(id.to_owned()), "operation id {id} is not unique");
            assert!(operation["tags"][0].is_string() && operation["summary"].is_string(), "{id} has no tag or summary");
            assert!(operation["responses"]["default"].is_object(), "{id} has no default response");
        }
    }
}

#[test]
fn all_references_in_the_openapi_document_resolve() {
    let document = serde_json::to_value(flags_api::openapi()).unwrap();
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} does not exist");
    }
}

//! Evaluation results of a user as admins see them: all flags, and the explanation of one flag.

mod consistency;
mod explain;
mod user_flags;

use flags_tests::app::TestApp;
use serde_json::{Value, json};

fn explanation_path(user_id: &str, flag: &str) -> String {
    format!("/api/admin/users/{user_id}/flags/{flag}/explanation")
}

async fn explain(app: &TestApp, user_id: &str, flag: &str) -> Value {
    app.admin.get(&explanation_path(user_id, flag)).await.expect(200).json()
}

fn finding_codes(explanation: &Value) -> Vec<&str> {
    let findings = explanation["findings"].as_array().unwrap().iter();
    findings.map(|finding| finding["code"].as_str().unwrap()).collect()
}

/// Creates a flag with a disabled rule, a rule for the plan `pro`, and a default split by the attribute `company`.
async fn create_flag_with_rules(app: &TestApp) {
    app.create_flag(json!({
        "name": "checkout.flow", "flag_type": "string",
        "variants": [{"id": "old", "value": "classic"}, {"id": "new", "value": "one-page"}, {"id": "beta", "value": "b"}],
        "default": {"weights": {"old": 50, "new": 50}, "bucket_by": "company"}, "off_variant": "old",
        "targeting_rules": [
            {"id": "off", "enabled": false, "conditions": [], "serve": {"variant": "beta"}},
            {"id": "pro", "conditions": [
                {"attribute": "plan", "operator": "equals", "values": ["pro"]},
                {"attribute": "seats", "operator": "gte", "values": [10]},
            ], "serve": {"variant": "new"}},
        ],
    }))
    .await;
}

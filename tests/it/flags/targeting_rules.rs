//! Targeting rules of a flag.

use serde_json::json;

use flags_tests::{app::TestApp, database::DatabaseKind, on_both_databases};

use super::FLAGS_PATH;

on_both_databases! {
    targeting_condition_accepts_ten_thousand_values,
}

async fn targeting_condition_accepts_ten_thousand_values(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let mut values: Vec<_> = (0..9_999).map(|number| json!(format!("unknown-{number}"))).collect();
    values.push(json!(ann_id));
    let rules = json!({"targeting_rules": [{"id": "r", "serve": {"variant": "on"},
        "conditions": [{"attribute": "user_id", "operator": "equals", "values": values}]}]});
    app.admin.put(&format!("{FLAGS_PATH}/f/targeting-rules"), &rules).await.expect(200);
    assert_eq!(ann.get("/api/flags/me/f").await.json()["source"], "targeting_rule");
}

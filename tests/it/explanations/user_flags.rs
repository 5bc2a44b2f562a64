//! All flags of one user.

use serde_json::json;

use flags_tests::{
    app::{TestApp, override_path},
    database::DatabaseKind,
    on_both_databases,
};

use super::create_flag_with_rules;

on_both_databases! {
    admin_can_read_all_flags_of_a_user,
}

async fn admin_can_read_all_flags_of_a_user(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    create_flag_with_rules(&app).await;
    app.create_flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let (ann_id, _) = app.create_user_with("ann", "user", json!({"plan": "pro", "seats": 12})).await;
    let body = json!({"override_value": true, "reason": "support", "expires_at": "2030-01-03T00:00:00Z"});
    app.admin.put(&override_path(&ann_id, "hidden"), &body).await.expect(201);
    let user_flags = app.admin.get(&format!("/api/admin/users/{ann_id}/flags")).await.expect(200).json();
    assert_eq!((&user_flags["user_id"], &user_flags["valid_until"]), (&json!(ann_id), &json!("2030-01-03T00:00:00Z")));
    let expected = json!({"value": "one-page", "variant": "new", "source": "targeting_rule", "rule_id": "pro",
        "flag_type": "string", "client_visible": true});
    assert_eq!(user_flags["flags"]["checkout.flow"], expected);
    let hidden = &user_flags["flags"]["hidden"];
    assert_eq!((&hidden["client_visible"], &hidden["override"]["reason"]), (&json!(false), &json!("support")));
    assert_eq!(hidden["then"], json!({"value": false, "variant": "off", "source": "default"}));
}

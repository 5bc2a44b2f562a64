//! The server keeps at least one active admin.

use serde_json::json;

use flags_tests::{app::TestApp, database::DatabaseKind, on_both_databases};

use super::USERS_PATH;

on_both_databases! {
    concurrent_demotions_leave_one_admin_that_cannot_be_removed,
}

async fn concurrent_demotions_leave_one_admin_that_cannot_be_removed(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let ((first_id, _), (second_id, _)) =
        (app.create_user_with("one", "admin", json!({})).await, app.create_user_with("two", "admin", json!({})).await);
    let demote = json!({"role": "viewer"});
    let (first_path, second_path) = (format!("{USERS_PATH}/{first_id}"), format!("{USERS_PATH}/{second_id}"));
    let (first_response, second_response) =
        tokio::join!(app.admin.patch(&first_path, &demote), app.admin.patch(&second_path, &demote));
    let mut statuses = [first_response.status.as_u16(), second_response.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let remaining_admin = if first_response.status.as_u16() == 409 { &first_path } else { &second_path };
    app.admin.patch(remaining_admin, &json!({"active": false})).await.expect_problem(409, "last_admin");
    app.admin.delete(remaining_admin).await.expect_problem(409, "last_admin");
}

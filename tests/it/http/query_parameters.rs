//! Query parameters of lists.

use flags_tests::{app::TestApp, database::DatabaseKind, on_both_databases};

on_both_databases! {
    rejects_invalid_query_parameters,
}

async fn rejects_invalid_query_parameters(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let lists = ["users", "feature-flags", "flag-overrides", "scheduled-changes"];
    for list in lists {
        for (query, pointer, code) in [
            ("limit=0", "/limit", "invalid_parameter"),
            ("limit=201", "/limit", "invalid_parameter"),
            ("limit=many", "/limit", "invalid_parameter"),
            ("limit=", "/limit", "invalid_parameter"),
            ("cursor=rubbish", "/cursor", "invalid_parameter"),
            ("cursor=bnVsbA", "/cursor", "invalid_parameter"),
            ("nope=1", "/nope", "unknown_parameter"),
        ] {
            app.admin.get(&format!("/api/admin/{list}?{query}")).await.expect_violation(pointer, code);
        }
    }
    for (query, pointer) in [
        ("users?search=%00", "/search"),
        ("feature-flags?tag=a%00", "/tag"),
        ("flag-overrides?flag_name=%00", "/flag_name"),
    ] {
        app.admin.get(&format!("/api/admin/{query}")).await.expect_violation(pointer, "nul_character");
    }
    for query in [
        "flag-overrides?user_id=x",
        "flag-overrides?status=odd",
        "flag-overrides?expires_before=soon",
        "users?sort=x",
        "users?email_conflict=maybe",
        "feature-flags?archived=maybe",
    ] {
        app.admin.get(&format!("/api/admin/{query}")).await.expect_problem(422, "validation_failed");
    }
    app.admin.get("/api/admin/users?search=%ff%fe").await.expect(200);
    for list in ["users", "feature-flags", "flag-overrides"] {
        app.admin.get(&format!("/api/admin/{list}?search={}", "x".repeat(255))).await.expect(200);
        let response = app.admin.get(&format!("/api/admin/{list}?search={}", "x".repeat(15_000))).await;
        response.expect_violation("/search", "invalid_parameter");
    }
}

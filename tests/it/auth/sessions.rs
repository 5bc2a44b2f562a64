//! Sessions: expiry, revocation and persistence.

use std::time::Duration;

use flags_api::Settings;
use flags_service::credentials::sessions::SessionLifetimes;
use serde_json::json;

use flags_tests::{
    app::{PASSWORD, TestApp, override_path},
    caller::Caller,
    database::{Database, DatabaseKind},
    on_both_databases,
    process::{self, RunningProcess},
};

use super::{LOGIN_PATH, ME_PATH, login_body};

on_both_databases! {
    sessions_expire_when_idle_and_at_their_absolute_lifetime,
    sessions_unused_for_ninety_days_are_purged,
    deactivation_password_change_and_deletion_end_sessions,
    logout_ends_event_streams,
    overrides_persist_across_sessions,
    logout_on_one_server_ends_the_session_on_another,
}

async fn sessions_expire_when_idle_and_at_their_absolute_lifetime(kind: DatabaseKind) {
    let hours = |count: u64| Duration::from_secs(count * 3_600);
    let session_lifetimes = SessionLifetimes { idle: hours(1), absolute: hours(3) };
    let app = TestApp::start_with_settings(kind, Settings { session_lifetimes, ..Settings::default() }).await;
    let (_, email) = app.create_account("ada", "admin").await;
    let (active, idle) = (app.anonymous.sign_in(&email, PASSWORD).await, app.anonymous.sign_in(&email, PASSWORD).await);
    for instant in ["01-01T00:59:59Z", "01-01T01:59:58Z", "01-01T02:59:57Z"] {
        app.set_clock(instant);
        active.get(ME_PATH).await.expect(200);
    }
    idle.get(ME_PATH).await.expect_problem(401, "unauthorized");
    app.set_clock("01-01T03:00:00Z");
    active.get(ME_PATH).await.expect_problem(401, "unauthorized");
    let third = app.anonymous.sign_in(&email, PASSWORD).await;
    app.set_clock("01-01T04:00:00Z");
    third.get(ME_PATH).await.expect_problem(401, "unauthorized");
    flags_service::maintenance::run_round(&app.core, Default::default()).await.expect("the maintenance round succeeds");
    // The worker purges sessions at their absolute lifetime. It does not know the idle timeout, a server setting.
    let fourth = app.anonymous.sign_in(&email, PASSWORD).await;
    app.set_clock("01-01T07:00:00Z");
    let round = flags_service::maintenance::run_round(&app.core, Default::default())
        .await
        .expect("the maintenance round succeeds");
    assert_eq!(round.sessions_purged, 2, "the third and fourth sessions are purged");
    fourth.get(ME_PATH).await.expect_problem(401, "unauthorized");
}

async fn sessions_unused_for_ninety_days_are_purged(kind: DatabaseKind) {
    let year = Duration::from_secs(365 * 24 * 3_600);
    let session_lifetimes = SessionLifetimes { idle: year, absolute: year };
    let app = TestApp::start_with_settings(kind, Settings { session_lifetimes, ..Settings::default() }).await;
    let (_, email) = app.create_account("ada", "admin").await;
    let browser = app.anonymous.sign_in(&email, PASSWORD).await;
    for (instant, purged) in [("03-31T23:59:59Z", 0), ("04-01T00:00:00Z", 1)] {
        app.set_clock(instant);
        let round = flags_service::maintenance::run_round(&app.core, Default::default())
            .await
            .expect("the maintenance round succeeds");
        assert_eq!(round.sessions_purged, purged, "{instant}");
    }
    expect_session_end(&browser).await;
}

/// Waits until the server rejects the session; a server caches a session for up to one second.
async fn expect_session_end(browser: &Caller) {
    flags_tests::eventually("the session ends", async || (browser.get(ME_PATH).await.status == 401).then_some(()))
        .await;
}

async fn deactivation_password_change_and_deletion_end_sessions(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, email) = app.create_account("ann", "user").await;
    let path = format!("/api/admin/users/{ann_id}");
    let sign_in = async || app.anonymous.sign_in(&email, PASSWORD).await;
    let browser = sign_in().await;
    browser.get("/api/flags/me").await.expect(200);
    browser.get("/api/admin/users").await.expect_problem(403, "forbidden");
    app.admin.patch(&path, &json!({"role": "viewer"})).await.expect(200);
    browser.get("/api/admin/users").await.expect(200);
    app.admin.patch(&path, &json!({"active": false})).await.expect(200);
    browser.get(ME_PATH).await.expect_problem(401, "unauthorized");
    app.anonymous.post(LOGIN_PATH, &login_body(&email, PASSWORD)).await.expect_problem(401, "sign_in_failed");
    app.admin.patch(&path, &json!({"active": true})).await.expect(200);
    expect_session_end(&browser).await;
    let browser = sign_in().await;
    let changed = app.admin.put(&format!("{path}/password"), &json!({"password": "another long password"})).await;
    assert!(!changed.expect(204).header("flags-revision").is_empty());
    browser.get(ME_PATH).await.expect_problem(401, "unauthorized");
    app.anonymous.post(LOGIN_PATH, &login_body(&email, PASSWORD)).await.expect_problem(401, "sign_in_failed");
    let browser = app.anonymous.sign_in(&email, "another long password").await;
    app.admin.delete(&path).await.expect(204);
    browser.get(ME_PATH).await.expect_problem(401, "unauthorized");
    app.anonymous
        .post(LOGIN_PATH, &login_body(&email, "another long password"))
        .await
        .expect_problem(401, "sign_in_failed");
    app.admin
        .put(&format!("{path}/password"), &json!({"password": PASSWORD}))
        .await
        .expect_problem(404, "user_not_found");
}

async fn logout_ends_event_streams(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.create_account("ada", "admin").await;
    for path in ["/api/flags/stream", "/api/admin/stream"] {
        let browser = app.anonymous.sign_in(&email, PASSWORD).await;
        let mut events = browser.open_stream(path, &[]).await;
        assert_eq!(events.next().await.event, "snapshot");
        browser.post("/api/auth/logout", &json!({})).await.expect(204);
        let bye = events.next().await;
        assert_eq!((bye.event.as_str(), &bye.data["reason"]), ("bye", &json!("revoked")));
    }
}

/// Integration test required by the product specification under this name.
async fn overrides_persist_across_sessions(kind: DatabaseKind) {
    let database = Database::empty(kind).await;
    let email = "ada@example.com";
    let arguments =
        ["user", "create", "--database-url", &database.url, "--email", email, "--role", "admin", "--password-stdin"];
    let id = process::stdout_with_input("server", &arguments, &format!("{PASSWORD}\n"));
    let server = RunningProcess::server(&database.url);
    let first_browser = Caller::new(&server.base_url, None).sign_in(email, PASSWORD).await;
    first_browser.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    first_browser.put(&override_path(&id, "f"), &json!({"override_value": true})).await.expect(201);
    first_browser.post("/api/auth/logout", &json!({})).await.expect(204);
    let second_browser = Caller::new(&server.base_url, None).sign_in(email, PASSWORD).await;
    assert_eq!(second_browser.get("/api/flags/me/f").await.expect(200).json()["source"], "override");
    assert!(server.stop().success());
    let server = RunningProcess::server(&database.url);
    assert_eq!(
        second_browser.at_server(&server.base_url).get("/api/flags/me/f").await.expect(200).json()["value"],
        true,
        "the session outlives a restart of the server"
    );
    let arguments = ["user", "set-password", "--database-url", &database.url, "--email", email, "--password-stdin"];
    process::stdout_with_input("server", &arguments, "another long password\n");
    let third_browser = Caller::new(&server.base_url, None).sign_in(email, "another long password").await;
    assert_eq!(third_browser.get("/api/flags/me/f").await.expect(200).json()["value"], true);
}

async fn logout_on_one_server_ends_the_session_on_another(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let email = "ada@example.com";
    let arguments =
        ["user", "create", "--database-url", &database.url, "--email", email, "--role", "admin", "--password-stdin"];
    process::stdout_with_input("server", &arguments, PASSWORD);
    let (first, second) = (RunningProcess::server(&database.url), RunningProcess::server(&database.url));
    let browser = Caller::new(&first.base_url, None).sign_in(email, PASSWORD).await;
    let browser_at_second = browser.at_server(&second.base_url);
    browser_at_second.get(ME_PATH).await.expect(200);
    let mut events = browser_at_second.open_stream("/api/admin/stream", &[]).await;
    assert_eq!(events.next().await.event, "snapshot");
    browser.post("/api/auth/logout", &json!({})).await.expect(204);
    flags_tests::eventually("the second server rejects the session", async || {
        (browser_at_second.get(ME_PATH).await.status == 401).then_some(())
    })
    .await;
    assert_eq!(events.next().await.data["reason"], "revoked");
}

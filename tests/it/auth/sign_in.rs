//! Signing in and out: cookies, lifetimes, waiting after failures, and requests forged by other sites.

use std::time::Duration;

use flags_api::Settings;
use flags_service::credentials::sessions::Lifetimes;
use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{PASSWORD, TestApp, override_at},
    caller::{Caller, Reply},
    database::{Database, Kind},
    on_both_databases,
    process::{self, Running},
};

on_both_databases! {
    a_session_lasts_from_signing_in_to_signing_out,
    elsewhere_the_cookie_is_secure_and_bound_to_its_host,
    signing_in_again_takes_a_new_session_in_place_of_the_old,
    sessions_end_when_idle_and_in_the_end,
    a_session_that_nobody_used_for_ninety_days_goes,
    whatever_ends_a_users_access_ends_their_sessions,
    streams_end_with_the_session,
    failures_make_the_next_attempt_wait,
    an_account_or_an_address_alone_has_thirty_failures_free,
    nobody_waits_for_strangers_where_they_signed_in_before,
    a_place_is_known_for_ninety_days_whether_or_not_the_worker_runs,
    many_attempts_at_once_are_counted_each,
    an_unknown_account_is_told_like_a_wrong_password,
    changes_by_cookie_come_from_this_very_site,
    a_password_is_changed_by_whoever_knows_it,
    requests_with_secrets_take_no_idempotency_key,
    bad_fields,
    overrides_persist_across_sessions,
    a_session_ended_on_one_server_is_void_on_another,
}

const LOGIN: &str = "/api/auth/login";
const ME: &str = "/api/auth/me";

fn login(email: &str, password: &str) -> Value {
    json!({"email": email, "password": password})
}

async fn a_session_lasts_from_signing_in_to_signing_out(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ada, email) = app.account("ada", "admin").await;
    let answer = app.nobody.post(LOGIN, &login("ADA@Example.com", PASSWORD)).await.expect(200);
    let cookie = answer.header("set-cookie").to_owned();
    assert!(cookie.starts_with("flags_session=fls_"), "{cookie}");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=604800"] {
        assert!(cookie.contains(part), "{part} is missing in {cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains("Domain"), "{cookie}");
    let me = answer.json();
    let expected = json!({"id": ada, "email": email, "display_name": null, "role": "admin", "scope": null,
        "credential": "session", "expires_at": "2030-01-08T00:00:00Z"});
    assert_eq!(me, expected);
    let browser = app.nobody.with_cookie(answer.cookie());
    assert_eq!(browser.get(ME).await.expect(200).json(), expected);
    app.boolean_flag("f").await;
    let made = browser.put(&override_at(&ada, "f"), &json!({"override_value": true})).await.expect(201).json();
    assert_eq!(made["created_by"], format!("user:{ada}"));
    assert_eq!(browser.get("/api/flags/me/f").await.expect(200).json()["value"], true);
    let out = browser.post("/api/auth/logout", &json!({})).await.expect(204);
    assert!(out.header("set-cookie").starts_with("flags_session=; ") && out.header("set-cookie").contains("Max-Age=0"));
    browser.get(ME).await.expect_problem(401, "unauthorized");
    browser.post("/api/auth/logout", &json!({})).await.expect_problem(401, "unauthorized");
}

async fn elsewhere_the_cookie_is_secure_and_bound_to_its_host(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.account("ada", "admin").await;
    let sign_in = async |headers: &[(&str, &str)]| {
        app.nobody.json(Method::POST, LOGIN, headers, &login(&email, PASSWORD)).await.expect(200)
    };
    for headers in [[("host", "flags.example.com")], [("x-forwarded-proto", "https")], [("x-forwarded-for", "1.2.3.4")]]
    {
        let answer = sign_in(&headers).await;
        let cookie = answer.header("set-cookie");
        assert!(cookie.starts_with("__Host-flags_session=fls_") && cookie.contains("; Secure"), "{cookie}");
        let same = [headers[0], ("cookie", answer.cookie())];
        app.nobody.send(Method::GET, ME, &same, None).await.expect(200);
        let plain = answer.cookie().replace("__Host-", "");
        app.nobody.send(Method::GET, ME, &[headers[0], ("cookie", &plain)], None).await.expect(401);
    }
    let plain = sign_in(&[]).await;
    let prefixed = format!("__Host-{}", plain.cookie());
    app.nobody.send(Method::GET, ME, &[("cookie", plain.cookie())], None).await.expect(200);
    app.nobody.send(Method::GET, ME, &[("cookie", &prefixed)], None).await.expect(401);
}

async fn signing_in_again_takes_a_new_session_in_place_of_the_old(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.account("ada", "admin").await;
    let first = app.nobody.sign_in(&email, PASSWORD).await;
    let other = app.nobody.sign_in(&email, PASSWORD).await;
    let second = first.sign_in(&email, PASSWORD).await;
    first.get(ME).await.expect_problem(401, "unauthorized");
    for browser in [&second, &other] {
        browser.get(ME).await.expect(200);
    }
    // A cookie that somebody made up is never taken over.
    let planted = app.nobody.with_cookie("flags_session=fls_planted").post(LOGIN, &login(&email, PASSWORD)).await;
    assert_ne!(planted.expect(200).cookie(), "flags_session=fls_planted");
    second.post("/api/auth/logout-all", &json!({})).await.expect(204);
    for browser in [&second, &other] {
        browser.get(ME).await.expect_problem(401, "unauthorized");
    }
}

async fn sessions_end_when_idle_and_in_the_end(kind: Kind) {
    let hours = |count: u64| Duration::from_secs(count * 3_600);
    let sessions = Lifetimes { idle: hours(1), absolute: hours(3) };
    let app = TestApp::start_set(kind, Settings { sessions, ..Settings::default() }).await;
    let (_, email) = app.account("ada", "admin").await;
    let (used, idle) = (app.nobody.sign_in(&email, PASSWORD).await, app.nobody.sign_in(&email, PASSWORD).await);
    for instant in ["01-01T00:59:59Z", "01-01T01:59:58Z", "01-01T02:59:57Z"] {
        app.clock_to(instant);
        used.get(ME).await.expect(200);
    }
    idle.get(ME).await.expect_problem(401, "unauthorized");
    app.clock_to("01-01T03:00:00Z");
    used.get(ME).await.expect_problem(401, "unauthorized");
    let third = app.nobody.sign_in(&email, PASSWORD).await;
    app.clock_to("01-01T04:00:00Z");
    third.get(ME).await.expect_problem(401, "unauthorized");
    flags_service::maintenance::run_round(&app.core, Default::default()).await.expect("a round");
    // What is over goes; what only this server holds for idle stays until its end.
    let fourth = app.nobody.sign_in(&email, PASSWORD).await;
    app.clock_to("01-01T07:00:00Z");
    let round = flags_service::maintenance::run_round(&app.core, Default::default()).await.expect("a round");
    assert_eq!(round.sessions_purged, 2, "the third and the fourth");
    fourth.get(ME).await.expect_problem(401, "unauthorized");
}

async fn a_session_that_nobody_used_for_ninety_days_goes(kind: Kind) {
    let year = Duration::from_secs(365 * 24 * 3_600);
    let sessions = Lifetimes { idle: year, absolute: year };
    let app = TestApp::start_set(kind, Settings { sessions, ..Settings::default() }).await;
    let (_, email) = app.account("ada", "admin").await;
    let browser = app.nobody.sign_in(&email, PASSWORD).await;
    for (instant, purged) in [("03-31T23:59:59Z", 0), ("04-01T00:00:00Z", 1)] {
        app.clock_to(instant);
        let round = flags_service::maintenance::run_round(&app.core, Default::default()).await.expect("a round");
        assert_eq!(round.sessions_purged, purged, "{instant}");
    }
    ended(&browser).await;
}

/// Waits until a session is void; its server remembers it for a second.
async fn ended(browser: &Caller) {
    flags_tests::eventually("the session ends", async || (browser.get(ME).await.status == 401).then_some(())).await;
}

async fn whatever_ends_a_users_access_ends_their_sessions(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, email) = app.account("ann", "user").await;
    let path = format!("/api/admin/users/{ann}");
    let sign_in = async || app.nobody.sign_in(&email, PASSWORD).await;
    let browser = sign_in().await;
    browser.get("/api/flags/me").await.expect(200);
    browser.get("/api/admin/users").await.expect_problem(403, "forbidden");
    app.admin.patch(&path, &json!({"role": "viewer"})).await.expect(200);
    browser.get("/api/admin/users").await.expect(200);
    app.admin.patch(&path, &json!({"active": false})).await.expect(200);
    browser.get(ME).await.expect_problem(401, "unauthorized");
    app.nobody.post(LOGIN, &login(&email, PASSWORD)).await.expect_problem(401, "sign_in_failed");
    app.admin.patch(&path, &json!({"active": true})).await.expect(200);
    ended(&browser).await;
    let browser = sign_in().await;
    let changed = app.admin.put(&format!("{path}/password"), &json!({"password": "another long password"})).await;
    assert!(!changed.expect(204).header("flags-revision").is_empty());
    browser.get(ME).await.expect_problem(401, "unauthorized");
    app.nobody.post(LOGIN, &login(&email, PASSWORD)).await.expect_problem(401, "sign_in_failed");
    let browser = app.nobody.sign_in(&email, "another long password").await;
    app.admin.delete(&path).await.expect(204);
    browser.get(ME).await.expect_problem(401, "unauthorized");
    app.nobody.post(LOGIN, &login(&email, "another long password")).await.expect_problem(401, "sign_in_failed");
    app.admin
        .put(&format!("{path}/password"), &json!({"password": PASSWORD}))
        .await
        .expect_problem(404, "user_not_found");
}

async fn streams_end_with_the_session(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.account("ada", "admin").await;
    for path in ["/api/flags/stream", "/api/admin/stream"] {
        let browser = app.nobody.sign_in(&email, PASSWORD).await;
        let mut events = browser.stream(path, &[]).await;
        assert_eq!(events.next().await.event, "snapshot");
        browser.post("/api/auth/logout", &json!({})).await.expect(204);
        let bye = events.next().await;
        assert_eq!((bye.event.as_str(), &bye.data["reason"]), ("bye", &json!("revoked")));
    }
}

fn retry_after(reply: &Reply) -> u64 {
    reply.header("retry-after").parse().expect("seconds")
}

async fn failures_make_the_next_attempt_wait(kind: Kind) {
    let app = TestApp::start_set(kind, Settings { proxies: 1, ..Settings::default() }).await;
    let (_, email) = app.account("ada", "admin").await;
    let (_, other) = app.account("ben", "admin").await;
    let from = async |address: &str, email: &str, password: &str| {
        app.nobody.json(Method::POST, LOGIN, &[("x-forwarded-for", address)], &login(email, password)).await
    };
    // Three cost nothing, and the right password makes a new start.
    for failures in 1..=3 {
        for _ in 0..failures {
            from("1.1.1.1", &email, "wrong").await.expect_problem(401, "sign_in_failed");
        }
        from("1.1.1.1", &email, PASSWORD).await.expect(200);
    }
    for _ in 0..3 {
        from("1.1.1.1", &email, "wrong").await.expect_problem(401, "sign_in_failed");
    }
    let mut seconds = 0;
    let mut waits = Vec::new();
    for _ in 0..8 {
        from("1.1.1.1", &email, "wrong").await.expect_problem(401, "sign_in_failed");
        // Not even the right one is looked at before its time.
        let next = from("1.1.1.1", &email, PASSWORD).await;
        let wait = retry_after(&next);
        next.expect_problem(429, "too_many_attempts");
        waits.push(wait);
        seconds += wait;
        app.clock_to(&format!("01-01T00:{:02}:{:02}Z", seconds / 60, seconds % 60));
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60], "and never more");
    from("1.1.1.1", &other, PASSWORD).await.expect(200);
    from("2.2.2.2", &email, PASSWORD).await.expect(200);
    from("1.1.1.1", &email, PASSWORD).await.expect(200);
    from("1.1.1.1", &email, "wrong").await.expect_problem(401, "sign_in_failed");
    from("1.1.1.1", &email, PASSWORD).await.expect(200);
}

async fn an_account_or_an_address_alone_has_thirty_failures_free(kind: Kind) {
    let app = TestApp::start_set(kind, Settings { proxies: 1, ..Settings::default() }).await;
    let (_, email) = app.account("ada", "admin").await;
    let from = async |address: &str, email: &str| {
        app.nobody.json(Method::POST, LOGIN, &[("x-forwarded-for", address)], &login(email, "wrong")).await
    };
    for number in 1..=31 {
        from(&format!("1.1.1.{number}"), &email).await.expect_problem(401, "sign_in_failed");
        from("9.9.9.9", &format!("nobody{number}@example.com")).await.expect_problem(401, "sign_in_failed");
    }
    let of_account = from("1.1.1.32", &email).await;
    let of_address = from("9.9.9.9", "nobody32@example.com").await;
    assert_eq!((retry_after(&of_account), retry_after(&of_address)), (1, 1));
    of_account.expect_problem(429, "too_many_attempts");
    of_address.expect_problem(429, "too_many_attempts");
    from("1.1.1.32", "nobody32@example.com").await.expect_problem(401, "sign_in_failed");
}

async fn nobody_waits_for_strangers_where_they_signed_in_before(kind: Kind) {
    let app = TestApp::start_set(kind, Settings { proxies: 1, ..Settings::default() }).await;
    let (_, email) = app.account("ada", "admin").await;
    let from = async |address: &str, password: &str| {
        app.nobody.json(Method::POST, LOGIN, &[("x-forwarded-for", address)], &login(&email, password)).await
    };
    from("1.1.1.1", PASSWORD).await.expect(200);
    for number in 1..=40 {
        let refused = from(&format!("9.9.9.{number}"), "guessed").await;
        assert!([401, 429].contains(&refused.status.as_u16()), "{}", refused.text);
    }
    let elsewhere = from("2.2.2.2", PASSWORD).await;
    assert!(retry_after(&elsewhere) <= 5);
    elsewhere.expect_problem(429, "too_many_attempts");
    from("1.1.1.1", PASSWORD).await.expect(200);
    // Their own failures they do wait for.
    for _ in 0..4 {
        from("1.1.1.1", "wrong").await.expect_problem(401, "sign_in_failed");
    }
    from("1.1.1.1", PASSWORD).await.expect_problem(429, "too_many_attempts");
}

async fn a_place_is_known_for_ninety_days_whether_or_not_the_worker_runs(kind: Kind) {
    let app = TestApp::start_set(kind, Settings { proxies: 1, ..Settings::default() }).await;
    let (_, email) = app.account("ada", "admin").await;
    let from = async |address: &str, password: &str| {
        app.nobody.json(Method::POST, LOGIN, &[("x-forwarded-for", address)], &login(&email, password)).await
    };
    from("1.1.1.1", PASSWORD).await.expect(200);
    app.clock_to("03-31T23:59:59.999999Z");
    for number in 1..=31 {
        from(&format!("9.9.9.{number}"), "guessed").await.expect_problem(401, "sign_in_failed");
    }
    from("1.1.1.1", "wrong").await.expect_problem(401, "sign_in_failed");
    app.clock_to("04-01T00:00:00Z");
    from("1.1.1.1", PASSWORD).await.expect_problem(429, "too_many_attempts");
}

async fn many_attempts_at_once_are_counted_each(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.account("ada", "admin").await;
    let attempts = (0..20).map(|_| {
        let (nobody, body) = (app.nobody.clone(), login(&email, "wrong"));
        tokio::spawn(async move { nobody.post(LOGIN, &body).await.status.as_u16() })
    });
    let mut statuses = Vec::new();
    for attempt in attempts.collect::<Vec<_>>() {
        statuses.push(attempt.await.unwrap());
    }
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    assert_eq!((count(401), count(429)), (4, 16), "{statuses:?}");
}

async fn an_unknown_account_is_told_like_a_wrong_password(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.account("ada", "admin").await;
    // Ann has no password at all.
    app.user("ann").await;
    let mut answers = Vec::new();
    for email in [email.as_str(), "nobody@example.com", "ann@example.com", "no e-mail", "", "%", "' OR 1=1 --"] {
        let answer = app.nobody.post(LOGIN, &login(email, "wrong")).await;
        let mut body = answer.expect_problem(401, "sign_in_failed");
        body["instance"].take();
        answers.push(body);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
}

async fn changes_by_cookie_come_from_this_very_site(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.account("ada", "admin").await;
    let answer = app.nobody.post(LOGIN, &login(&email, PASSWORD)).await.expect(200);
    let host = app.base().trim_start_matches("http://").to_owned();
    let own = format!("http://{host}");
    let cookie = ("cookie", answer.cookie());
    let json_type = ("content-type", "application/json");
    let body = br#"{"email": "new@example.com"}"#.to_vec();
    let post = async |headers: &[(&str, &str)], body: &[u8]| {
        app.nobody.send(Method::POST, "/api/admin/users", headers, Some(body.to_vec())).await
    };
    let evil = format!("{own}.evil.com");
    for headers in [
        vec![],
        vec![("origin", "https://evil.com")],
        vec![("origin", "null")],
        vec![("origin", evil.as_str())],
        vec![("origin", "http://localhost:1")],
        vec![("sec-fetch-site", "cross-site")],
        vec![("sec-fetch-site", "same-site"), ("origin", own.as_str())],
        vec![("sec-fetch-site", "none")],
        vec![("referer", own.as_str())],
    ] {
        let headers = [vec![cookie, json_type], headers].concat();
        post(&headers, &body).await.expect_problem(403, "cross_site_request");
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""] {
        let headers = [cookie, ("origin", own.as_str()), ("content-type", content_type)];
        post(&headers, &body).await.expect_problem(415, "unsupported_media_type");
        let logout = app.nobody.send(Method::POST, "/api/auth/logout", &headers, Some(b"a=b".to_vec())).await;
        logout.expect_problem(415, "unsupported_media_type");
    }
    let cross = [cookie, ("origin", "https://evil.com")];
    for (method, path) in [
        (Method::POST, "/api/auth/logout"),
        (Method::POST, "/api/auth/logout-all"),
        (Method::DELETE, "/api/admin/users/00000000-0000-0000-0000-000000000000"),
        (Method::POST, "/api/admin/feature-flags/f/archive"),
    ] {
        app.nobody.send(method, path, &cross, None).await.expect_problem(403, "cross_site_request");
    }
    // Another site must not sign its visitors in either.
    let forged =
        app.nobody.json(Method::POST, LOGIN, &[("origin", "https://evil.com")], &login(&email, PASSWORD)).await;
    forged.expect_problem(403, "cross_site_request");
    // Reading is left to SameSite and CORS; a token is no cookie.
    app.nobody.send(Method::GET, ME, &cross, None).await.expect(200);
    let by_token =
        app.admin.json(Method::POST, "/api/admin/users", &cross[1..], &json!({"email": "x@example.com"})).await;
    by_token.expect(201);
    assert_eq!(app.admin.get("/api/admin/users?search=new").await.json()["total"], 0, "nothing came of all that");
    post(&[cookie, json_type, ("origin", own.as_str())], &body).await.expect(201);
    let same = [cookie, ("sec-fetch-site", "same-origin")];
    app.nobody.send(Method::POST, "/api/auth/logout", &same, None).await.expect(204);
}

async fn a_password_is_changed_by_whoever_knows_it(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ada, email) = app.account("ada", "admin").await;
    let (browser, other) = (app.nobody.sign_in(&email, PASSWORD).await, app.nobody.sign_in(&email, PASSWORD).await);
    let change = |current: &str, new: &str| json!({"current_password": current, "new_password": new});
    let path = "/api/auth/password";
    browser.post(path, &change("wrong", "a new long password")).await.expect_problem(401, "sign_in_failed");
    browser.post(path, &change(PASSWORD, "short")).await.expect_violation("/new_password", "too_short");
    browser.post(path, &change(PASSWORD, &email)).await.expect_violation("/new_password", "too_simple");
    app.admin.post(path, &change(PASSWORD, "a new long password")).await.expect_problem(403, "no_session");
    let before = app.log().await.len();
    let changed = browser.post(path, &change(PASSWORD, "a new long password")).await.expect(204);
    assert!(!changed.header("flags-revision").is_empty());
    for old in [&browser, &other] {
        old.get(ME).await.expect_problem(401, "unauthorized");
    }
    app.nobody.with_cookie(changed.cookie()).get(ME).await.expect(200);
    app.nobody.post(LOGIN, &login(&email, PASSWORD)).await.expect_problem(401, "sign_in_failed");
    app.nobody.sign_in(&email, "a new long password").await;
    let log = app.log().await.split_off(before);
    assert_eq!(log.iter().map(|(_, a, e)| format!("{e} {a}")).collect::<Vec<_>>(), ["user updated"]);
    let mut conn = app.core.store().conn().await.unwrap();
    let (_, rows) = flags_store::change_log::read_on(&mut conn, 0, 1_000).await.unwrap();
    let row = rows.last().unwrap();
    assert_eq!(row.after.as_ref().unwrap()["changed"], json!(["password"]));
    assert_eq!(row.summary.actor, format!("user:{ada}"));
    assert!(!format!("{rows:?}").contains("argon2"));
}

async fn requests_with_secrets_take_no_idempotency_key(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.account("ada", "admin").await;
    let browser = app.nobody.sign_in(&email, PASSWORD).await;
    let key = [("idempotency-key", "k")];
    let token = json!({"name": "t", "role": "viewer"});
    let id =
        app.admin.post("/api/admin/api-tokens", &token).await.expect(201).json()["id"].as_str().unwrap().to_owned();
    let rotate = format!("/api/admin/api-tokens/{id}/rotate");
    for (caller, path, body) in [
        (&app.nobody, LOGIN, login(&email, PASSWORD)),
        (&browser, "/api/auth/password", json!({"current_password": PASSWORD, "new_password": "a new long password"})),
        (&app.admin, "/api/admin/users", json!({"email": "x@example.com", "password": PASSWORD})),
        (&app.admin, "/api/admin/api-tokens", token),
        (&app.admin, &rotate, json!({})),
    ] {
        caller.json(Method::POST, path, &key, &body).await.expect_violation("/Idempotency-Key", "not_allowed");
    }
    app.admin.json(Method::POST, "/api/admin/users", &key, &json!({"email": "x@example.com"})).await.expect(201);
}

async fn bad_fields(kind: Kind) {
    let app = TestApp::start(kind).await;
    let good = login("a@b", "x");
    for (field, value, code) in [
        ("email", json!(1), "invalid_type"),
        ("email", json!("a\0@b"), "nul_character"),
        ("email", json!("a".repeat(255)), "too_long"),
        ("password", json!(null), "invalid_type"),
        ("nope", json!(1), "unknown_field"),
        ("role", json!("admin"), "unknown_field"),
    ] {
        let mut body = good.clone();
        body[field] = value;
        app.nobody.post(LOGIN, &body).await.expect_violation(&format!("/{field}"), code);
    }
    app.nobody.post(LOGIN, &json!({"email": "a@b"})).await.expect_violation("/password", "required");
    app.nobody.post(LOGIN, &login("a@b", &"x".repeat(100_000))).await.expect_problem(401, "sign_in_failed");
    for (password, code) in
        [("short", "too_short"), ("nul \0 in the middle", "nul_character"), ("a@b.example.com", "too_simple")]
    {
        let body = json!({"email": "a@b.example.com", "password": password});
        app.admin.post("/api/admin/users", &body).await.expect_violation("/password", code);
    }
}

/// The specification's integration test of this name.
async fn overrides_persist_across_sessions(kind: Kind) {
    let database = Database::empty(kind).await;
    let email = "ada@example.com";
    let words =
        ["user", "create", "--database-url", &database.url, "--email", email, "--role", "admin", "--password-stdin"];
    let id = process::output_with_input("server", &words, &format!("{PASSWORD}\n"));
    let server = Running::server(&database.url);
    let browser = Caller::new(&server.base, None).sign_in(email, PASSWORD).await;
    browser.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    browser.put(&override_at(&id, "f"), &json!({"override_value": true})).await.expect(201);
    browser.post("/api/auth/logout", &json!({})).await.expect(204);
    let again = Caller::new(&server.base, None).sign_in(email, PASSWORD).await;
    assert_eq!(again.get("/api/flags/me/f").await.expect(200).json()["source"], "override");
    assert!(server.stop().success());
    let server = Running::server(&database.url);
    assert_eq!(
        again.at(&server.base).get("/api/flags/me/f").await.expect(200).json()["value"],
        true,
        "still signed in"
    );
    let words = ["user", "set-password", "--database-url", &database.url, "--email", email, "--password-stdin"];
    process::output_with_input("server", &words, "another long password\n");
    let third = Caller::new(&server.base, None).sign_in(email, "another long password").await;
    assert_eq!(third.get("/api/flags/me/f").await.expect(200).json()["value"], true);
}

async fn a_session_ended_on_one_server_is_void_on_another(kind: Kind) {
    let database = Database::migrated(kind).await;
    let email = "ada@example.com";
    let words =
        ["user", "create", "--database-url", &database.url, "--email", email, "--role", "admin", "--password-stdin"];
    process::output_with_input("server", &words, PASSWORD);
    let (one, two) = (Running::server(&database.url), Running::server(&database.url));
    let browser = Caller::new(&one.base, None).sign_in(email, PASSWORD).await;
    let elsewhere = browser.at(&two.base);
    elsewhere.get(ME).await.expect(200);
    let mut events = elsewhere.stream("/api/admin/stream", &[]).await;
    assert_eq!(events.next().await.event, "snapshot");
    browser.post("/api/auth/logout", &json!({})).await.expect(204);
    flags_tests::eventually("the other server hears of it", async || {
        (elsewhere.get(ME).await.status == 401).then_some(())
    })
    .await;
    assert_eq!(events.next().await.data["reason"], "revoked");
}

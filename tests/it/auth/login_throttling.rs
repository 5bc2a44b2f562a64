//! Throttling of failed logins by account, by address and by known network.

use flags_api::Settings;
use reqwest::Method;

use flags_tests::{
    app::{PASSWORD, TestApp},
    caller::ApiResponse,
    database::DatabaseKind,
    on_both_databases,
};

use super::{LOGIN_PATH, login_body};

on_both_databases! {
    repeated_login_failures_delay_the_next_attempt,
    account_and_address_are_each_throttled_after_thirty_login_failures,
    network_of_an_earlier_login_is_not_throttled_for_failures_elsewhere,
    network_of_a_login_stays_known_for_ninety_days_even_without_a_worker,
    concurrent_login_failures_are_each_counted,
}

fn retry_after_seconds(response: &ApiResponse) -> u64 {
    response.header("retry-after").parse().expect("seconds")
}

async fn repeated_login_failures_delay_the_next_attempt(kind: DatabaseKind) {
    let app = TestApp::start_with_settings(kind, Settings { trusted_proxies: 1, ..Settings::default() }).await;
    let (_, email) = app.create_account("ada", "admin").await;
    let (_, other_email) = app.create_account("ben", "admin").await;
    let login_from = async |address: &str, email: &str, password: &str| {
        app.anonymous
            .send_json(Method::POST, LOGIN_PATH, &[("x-forwarded-for", address)], &login_body(email, password))
            .await
    };
    // The first three failures cause no delay, and a successful login resets the count.
    for failures in 1..=3 {
        for _ in 0..failures {
            login_from("1.1.1.1", &email, "wrong").await.expect_problem(401, "sign_in_failed");
        }
        login_from("1.1.1.1", &email, PASSWORD).await.expect(200);
    }
    for _ in 0..3 {
        login_from("1.1.1.1", &email, "wrong").await.expect_problem(401, "sign_in_failed");
    }
    let mut elapsed = 0;
    let mut delays = Vec::new();
    for _ in 0..8 {
        login_from("1.1.1.1", &email, "wrong").await.expect_problem(401, "sign_in_failed");
        // Until the delay has passed, the server rejects even the correct password.
        let throttled = login_from("1.1.1.1", &email, PASSWORD).await;
        let delay = retry_after_seconds(&throttled);
        throttled.expect_problem(429, "too_many_attempts");
        delays.push(delay);
        elapsed += delay;
        app.set_clock(&format!("01-01T00:{:02}:{:02}Z", elapsed / 60, elapsed % 60));
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60], "delays double up to 60 seconds");
    login_from("1.1.1.1", &other_email, PASSWORD).await.expect(200);
    login_from("2.2.2.2", &email, PASSWORD).await.expect(200);
    login_from("1.1.1.1", &email, PASSWORD).await.expect(200);
    login_from("1.1.1.1", &email, "wrong").await.expect_problem(401, "sign_in_failed");
    login_from("1.1.1.1", &email, PASSWORD).await.expect(200);
}

async fn account_and_address_are_each_throttled_after_thirty_login_failures(kind: DatabaseKind) {
    let app = TestApp::start_with_settings(kind, Settings { trusted_proxies: 1, ..Settings::default() }).await;
    let (_, email) = app.create_account("ada", "admin").await;
    let fail_from = async |address: &str, email: &str| {
        app.anonymous
            .send_json(Method::POST, LOGIN_PATH, &[("x-forwarded-for", address)], &login_body(email, "wrong"))
            .await
    };
    for number in 1..=31 {
        fail_from(&format!("1.1.1.{number}"), &email).await.expect_problem(401, "sign_in_failed");
        fail_from("9.9.9.9", &format!("unknown{number}@example.com")).await.expect_problem(401, "sign_in_failed");
    }
    let by_account = fail_from("1.1.1.32", &email).await;
    let by_address = fail_from("9.9.9.9", "unknown32@example.com").await;
    assert_eq!((retry_after_seconds(&by_account), retry_after_seconds(&by_address)), (1, 1));
    by_account.expect_problem(429, "too_many_attempts");
    by_address.expect_problem(429, "too_many_attempts");
    fail_from("1.1.1.32", "unknown32@example.com").await.expect_problem(401, "sign_in_failed");
}

async fn network_of_an_earlier_login_is_not_throttled_for_failures_elsewhere(kind: DatabaseKind) {
    let app = TestApp::start_with_settings(kind, Settings { trusted_proxies: 1, ..Settings::default() }).await;
    let (_, email) = app.create_account("ada", "admin").await;
    let login_from = async |address: &str, password: &str| {
        app.anonymous
            .send_json(Method::POST, LOGIN_PATH, &[("x-forwarded-for", address)], &login_body(&email, password))
            .await
    };
    login_from("1.1.1.1", PASSWORD).await.expect(200);
    for number in 1..=40 {
        let refused = login_from(&format!("9.9.9.{number}"), "guessed").await;
        assert!([401, 429].contains(&refused.status.as_u16()), "{}", refused.text);
    }
    let from_other_network = login_from("2.2.2.2", PASSWORD).await;
    assert!(retry_after_seconds(&from_other_network) <= 5);
    from_other_network.expect_problem(429, "too_many_attempts");
    login_from("1.1.1.1", PASSWORD).await.expect(200);
    // Failures from the known network itself still cause a delay.
    for _ in 0..4 {
        login_from("1.1.1.1", "wrong").await.expect_problem(401, "sign_in_failed");
    }
    login_from("1.1.1.1", PASSWORD).await.expect_problem(429, "too_many_attempts");
}

async fn network_of_a_login_stays_known_for_ninety_days_even_without_a_worker(kind: DatabaseKind) {
    let app = TestApp::start_with_settings(kind, Settings { trusted_proxies: 1, ..Settings::default() }).await;
    let (_, email) = app.create_account("ada", "admin").await;
    let login_from = async |address: &str, password: &str| {
        app.anonymous
            .send_json(Method::POST, LOGIN_PATH, &[("x-forwarded-for", address)], &login_body(&email, password))
            .await
    };
    login_from("1.1.1.1", PASSWORD).await.expect(200);
    app.set_clock("03-31T23:59:59.999999Z");
    for number in 1..=31 {
        login_from(&format!("9.9.9.{number}"), "guessed").await.expect_problem(401, "sign_in_failed");
    }
    login_from("1.1.1.1", "wrong").await.expect_problem(401, "sign_in_failed");
    app.set_clock("04-01T00:00:00Z");
    login_from("1.1.1.1", PASSWORD).await.expect_problem(429, "too_many_attempts");
}

async fn concurrent_login_failures_are_each_counted(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (_, email) = app.create_account("ada", "admin").await;
    let attempts = (0..20).map(|_| {
        let (anonymous, body) = (app.anonymous.clone(), login_body(&email, "wrong"));
        tokio::spawn(async move { anonymous.post(LOGIN_PATH, &body).await.status.as_u16() })
    });
    let mut statuses = Vec::new();
    for attempt in attempts.collect::<Vec<_>>() {
        statuses.push(attempt.await.unwrap());
    }
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    assert_eq!((count(401), count(429)), (4, 16), "{statuses:?}");
}

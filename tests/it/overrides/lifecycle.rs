//! User overrides over HTTP: their life, their end, and what they yield to.

use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, author, override_at, overrides_of},
    database::Kind,
    on_both_databases,
};

on_both_databases! {
    an_override_lives_from_creation_to_removal,
    an_override_is_seen_by_its_user_and_nobody_else,
    an_override_ends_at_exactly_its_instant,
    an_expired_override_counts_as_absent,
    put_creates_and_replaces,
    a_change_that_changes_nothing_takes_no_revision,
    preconditions_are_checked_first,
    a_disabled_override_has_no_effect_and_blocks_creation,
    falsy_values_are_values_like_any_other,
    numbers_come_back_as_written,
    overrides_of_an_archived_flag_are_dormant,
    lists_are_ordered_filtered_and_paged,
    an_override_wins_over_every_other_layer,
    the_five_operations_of_the_service,
    replacing_an_expired_override_is_one_revision,
}

async fn value_of(caller: &flags_tests::caller::Caller, flag: &str) -> Value {
    caller.get(&format!("/api/flags/me/{flag}")).await.expect(200).json()["value"].clone()
}

async fn an_override_lives_from_creation_to_removal(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("ui.dark_mode").await;
    let body = json!({"flag_name": "ui.dark_mode", "override_value": true, "reason": "beta", "expires_at": "2030-02-01T00:00:00Z"});
    let created = app.admin.post(&overrides_of(&ann), &body).await.expect(201);
    let path = override_at(&ann, "ui.dark_mode");
    assert_eq!(created.header("location"), path);
    let shown = created.json();
    let epoch = created.header("flags-revision").split(':').next().unwrap().to_owned();
    assert_eq!(created.header("etag"), format!("\"{epoch}:{}\"", shown["revision"]));
    assert_eq!(created.header("flags-revision"), format!("{epoch}:{}", shown["revision"]));
    let mut fields: Vec<_> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "created_at",
            "created_by",
            "enabled",
            "expires_at",
            "flag_name",
            "id",
            "override_value",
            "reason",
            "revision",
            "status",
            "updated_at",
            "user_email",
            "user_id",
        ]
    );
    assert_eq!(shown["status"], "active");
    assert_eq!(shown["user_email"], "ann@example.com");
    assert!(shown["created_by"].as_str().unwrap().starts_with("token:"));
    assert_eq!(app.admin.get(&path).await.expect(200).json(), shown);

    app.clock_to("01-01T00:01:00Z");
    let patched = app.admin.patch(&path, &json!({"reason": null, "enabled": false})).await.expect(200);
    let now = patched.json();
    assert_eq!((&now["reason"], &now["enabled"], &now["status"]), (&Value::Null, &json!(false), &json!("disabled")));
    assert_eq!((&now["id"], &now["created_at"]), (&shown["id"], &shown["created_at"]));
    assert_eq!(now["updated_at"], "2030-01-01T00:01:00Z");
    assert_eq!(now["expires_at"], "2030-02-01T00:00:00Z");
    assert!(now["revision"].as_i64() > shown["revision"].as_i64());

    let removed = app.admin.delete(&path).await.expect(204);
    assert!(removed.header("flags-revision").starts_with(&epoch));
    app.admin.delete(&path).await.expect_problem(404, "override_not_found");
    app.admin.get(&path).await.expect_problem(404, "override_not_found");
}

async fn an_override_is_seen_by_its_user_and_nobody_else(kind: Kind) {
    let app = TestApp::start(kind).await;
    let ((ann, ann_calls), (_, ben_calls)) = (app.user("ann").await, app.user("ben").await);
    app.boolean_flag("f").await;
    app.admin
        .post(&overrides_of(&ann), &json!({"flag_name": "f", "override_value": true, "reason": "secret"}))
        .await
        .expect(201);
    let hers = ann_calls.get("/api/flags/me").await.expect(200);
    assert_eq!(hers.json()["flags"]["f"]["source"], "override");
    assert!(!hers.text.contains("secret"), "users do not see reasons");
    assert_eq!(value_of(&ben_calls, "f").await, false);
    let own = ann_calls.get("/api/flags/me/overrides").await.expect(200);
    assert_eq!(own.json()["overrides"][0]["flag_name"], "f");
    assert!(!own.text.contains("secret"));
    assert_eq!(ben_calls.get("/api/flags/me/overrides").await.expect(200).json()["overrides"], json!([]));
}

async fn an_override_ends_at_exactly_its_instant(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    app.boolean_flag("f").await;
    let body = json!({"flag_name": "f", "override_value": true, "expires_at": "2030-01-01T00:00:10.000005Z"});
    app.admin.post(&overrides_of(&ann), &body).await.expect(201);
    let path = override_at(&ann, "f");
    for (instant, value, status) in [
        ("01-01T00:00:10.000004Z", true, "active"),
        ("01-01T00:00:10.000005Z", false, "expired"),
        ("01-01T00:00:10.000006Z", false, "expired"),
    ] {
        app.clock_to(instant);
        let flag = ann_calls.get("/api/flags/me").await.expect(200).json()["flags"]["f"].clone();
        assert_eq!(flag["value"], value, "{instant}");
        assert_eq!(flag["source"], if value { "override" } else { "default" });
        assert_eq!(app.admin.get(&path).await.expect(200).json()["status"], status, "listed until it is removed");
        let count = app.admin.get("/api/admin/feature-flags/f").await.json()["override_count"].clone();
        assert_eq!(count, i64::from(value), "an expired one does not count");
    }
    app.clock_to("01-01T00:00:10.000004Z");
    let before = ann_calls.get("/api/flags/me").await.json();
    assert_eq!(before["valid_until"], "2030-01-01T00:00:10.000005Z");
    assert_eq!(before["flags"]["f"]["then"], json!({"value": false, "variant": "off", "source": "default"}));
}

async fn an_expired_override_counts_as_absent(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    let create = json!({"flag_name": "f", "override_value": true, "expires_at": "2030-01-01T00:00:10Z"});
    let first = app.admin.post(&overrides_of(&ann), &create).await.expect(201);
    app.clock_to("01-01T00:00:10Z");
    let path = override_at(&ann, "f");
    app.admin.patch(&path, &json!({"enabled": false})).await.expect_problem(404, "override_not_found");
    let stale_tag = [("if-match", first.header("etag"))];
    let put = app.admin.json(Method::PUT, &path, &stale_tag, &json!({"override_value": false})).await;
    put.expect_problem(412, "precondition_failed");
    let second =
        app.admin.post(&overrides_of(&ann), &json!({"flag_name": "f", "override_value": false})).await.expect(201);
    assert_ne!(second.json()["id"], first.json()["id"]);
    assert_eq!(second.json()["created_at"], "2030-01-01T00:00:10Z");
    app.admin.post(&overrides_of(&ann), &create).await.expect_violation("/expires_at", "not_in_future");
}

async fn replacing_an_expired_override_is_one_revision(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    let body = json!({"override_value": true, "expires_at": "2030-01-01T00:00:10Z"});
    app.admin.put(&override_at(&ann, "f"), &body).await.expect(201);
    app.clock_to("01-01T00:00:10Z");
    app.admin.put(&override_at(&ann, "f"), &json!({"override_value": true})).await.expect(201);
    let log = app.log().await;
    let [.., expired, created] = log.as_slice() else { panic!("{log:?}") };
    assert_eq!((expired.1.as_str(), created.1.as_str()), ("expired", "created"));
    assert_eq!(expired.0, created.0, "one revision");
}

async fn put_creates_and_replaces(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    let path = override_at(&ann, "f");
    let absent = [("if-none-match", "*")];
    let body = json!({"override_value": true, "reason": "one"});
    let created = app.admin.json(Method::PUT, &path, &absent, &body).await.expect(201);
    assert_eq!(created.header("location"), path);
    app.admin.json(Method::PUT, &path, &absent, &body).await.expect_problem(412, "precondition_failed");
    let replaced = app.admin.put(&path, &json!({"override_value": false})).await.expect(200).json();
    assert_eq!(replaced["reason"], Value::Null, "a PUT says all there is");
    assert_eq!(replaced["id"], created.json()["id"]);
    app.admin.put(&override_at(&ann, "nope"), &body).await.expect_problem(404, "flag_not_found");
}

async fn a_change_that_changes_nothing_takes_no_revision(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    let path = override_at(&ann, "f");
    let first = app.admin.put(&path, &json!({"override_value": true})).await.expect(201);
    let log = app.log().await;
    app.clock_to("01-01T00:05:00Z");
    let put = app.admin.put(&path, &json!({"override_value": true})).await.expect(200);
    let patch = app.admin.patch(&path, &json!({"override_value": true, "enabled": true})).await.expect(200);
    app.admin.patch(&path, &json!({})).await.expect(200);
    assert_eq!(app.log().await, log);
    assert_eq!(put.json(), first.json());
    assert_eq!(patch.header("etag"), first.header("etag"));
}

async fn preconditions_are_checked_first(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    app.boolean_flag("f").await;
    let path = override_at(&ann, "f");
    let body = json!({"enabled": false});
    app.admin.json(Method::PATCH, &path, &[("if-match", "*")], &body).await.expect_problem(412, "precondition_failed");
    let first = app.admin.put(&path, &json!({"override_value": true})).await.expect(201);
    let tag = first.header("etag").to_owned();
    let second = app.admin.json(Method::PATCH, &path, &[("if-match", &tag)], &body).await.expect(200);
    assert_ne!(second.header("etag"), tag);
    app.admin.json(Method::PATCH, &path, &[("if-match", &tag)], &body).await.expect_problem(412, "precondition_failed");
    let bad = json!({"override_value": "no boolean"});
    let answer = app.admin.json(Method::PATCH, &path, &[("if-match", &tag)], &bad).await;
    answer.expect_problem(412, "precondition_failed");
    let answer = app.admin.send(Method::DELETE, &path, &[("if-match", &tag)], None).await;
    answer.expect_problem(412, "precondition_failed");
    app.admin.send(Method::DELETE, &path, &[("if-match", second.header("etag"))], None).await.expect(204);
}

async fn a_disabled_override_has_no_effect_and_blocks_creation(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    app.boolean_flag("f").await;
    let body = json!({"flag_name": "f", "override_value": true, "enabled": false});
    app.admin.post(&overrides_of(&ann), &body).await.expect(201);
    assert_eq!(value_of(&ann_calls, "f").await, false);
    app.admin.post(&overrides_of(&ann), &body).await.expect_problem(409, "override_exists");
    app.admin.patch(&override_at(&ann, "f"), &json!({"enabled": true})).await.expect(200);
    assert_eq!(value_of(&ann_calls, "f").await, true);
}

async fn falsy_values_are_values_like_any_other(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    let flags = [
        ("b", "boolean", json!(true), json!(false)),
        ("n", "number", json!(7), json!(0)),
        ("s", "string", json!("x"), json!("")),
        ("j", "json", json!({"a": 1}), json!(null)),
    ];
    for (name, flag_type, normal, falsy) in flags {
        app.flag(json!({"name": name, "flag_type": flag_type, "variants": [{"id": "v", "value": normal}],
                        "default": {"variant": "v"}, "off_variant": "v"}))
            .await;
        app.admin.put(&override_at(&ann, name), &json!({"override_value": falsy})).await.expect(201);
        let mine = ann_calls.get(&format!("/api/flags/me/{name}")).await.expect(200).json();
        assert_eq!((&mine["value"], &mine["source"]), (&falsy, &json!("override")), "{name}");
        assert!(mine.as_object().unwrap().contains_key("value"));
    }
    let null = json!({"override_value": null});
    app.admin.patch(&override_at(&ann, "b"), &null).await.expect_problem(422, "value_type_mismatch");
    app.admin.put(&override_at(&ann, "j"), &json!({"override_value": 5})).await.expect(200);
    assert_eq!(app.admin.patch(&override_at(&ann, "j"), &null).await.expect(200).json()["override_value"], Value::Null);
}

async fn numbers_come_back_as_written(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    app.flag(json!({"name": "n", "flag_type": "number", "variants": [{"id": "one", "value": 1}],
                    "default": {"variant": "one"}, "off_variant": "one"}))
        .await;
    for written in ["1", "1.0", "0.1", "-2.5", "9007199254740992", "123456789.000001"] {
        let body = format!(r#"{{"override_value": {written}}}"#).into_bytes();
        let json = [("content-type", "application/json")];
        let stored = app.admin.send(Method::PUT, &override_at(&ann, "n"), &json, Some(body)).await;
        assert!(stored.text.contains(&format!("\"override_value\":{written},")), "{written}: {}", stored.text);
        let mine = ann_calls.get("/api/flags/me/n").await.expect(200);
        assert!(mine.text.contains(&format!("\"value\":{written},")), "{written}: {}", mine.text);
        let variant = if written.starts_with("1") && written.len() < 4 { json!("one") } else { Value::Null };
        assert_eq!(mine.json()["variant"], variant, "1 equals 1.0");
    }
    for huge in ["1e17", "1e300", "-1e20"] {
        let body = format!(r#"{{"override_value": {huge}}}"#).into_bytes();
        let json = [("content-type", "application/json")];
        app.admin.send(Method::PUT, &override_at(&ann, "n"), &json, Some(body)).await.expect(200);
        let read = app.admin.get(&override_at(&ann, "n")).await.expect(200).json();
        assert_eq!(read["override_value"].as_f64(), huge.parse().ok(), "{huge}");
        assert!(read["override_value"].is_f64(), "{huge} stays a double");
    }
}

async fn overrides_of_an_archived_flag_are_dormant(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    app.boolean_flag("f").await;
    let path = override_at(&ann, "f");
    app.admin.put(&path, &json!({"override_value": true})).await.expect(201);
    app.admin.post("/api/admin/feature-flags/f/archive", &json!({})).await.expect(200);
    ann_calls.get("/api/flags/me/f").await.expect_problem(404, "flag_not_found");
    assert_eq!(ann_calls.get("/api/flags/me").await.json()["flags"], json!({}));
    assert_eq!(app.admin.get("/api/admin/feature-flags/f/user-overrides").await.expect(200).json()["total"], 1);
    assert_eq!(app.admin.get("/api/admin/feature-flags/f").await.json()["override_count"], 0);
    assert_eq!(app.admin.get(&format!("/api/admin/users/{ann}")).await.json()["override_count"], 0);
    app.admin.patch(&path, &json!({"reason": "still"})).await.expect(200);
    app.admin.put(&path, &json!({"override_value": true})).await.expect_problem(404, "flag_not_found");
    let body = json!({"flag_name": "f", "override_value": true});
    app.admin.post(&overrides_of(&ann), &body).await.expect_problem(404, "flag_not_found");
    app.admin.post("/api/admin/feature-flags/f/restore", &json!({})).await.expect(200);
    assert_eq!(value_of(&ann_calls, "f").await, true, "restoring revives it");
    app.admin.post("/api/admin/feature-flags/f/archive", &json!({})).await.expect(200);
    app.admin.delete(&path).await.expect(204);
}

async fn lists_are_ordered_filtered_and_paged(kind: Kind) {
    let app = TestApp::start(kind).await;
    let mut users = Vec::new();
    for name in ["cleo", "ann", "Ben", "dan_x", "danyx"] {
        users.push(app.user(name).await.0);
    }
    for flag in ["b.two", "a", "b.one"] {
        app.boolean_flag(flag).await;
        app.admin.put(&override_at(&users[1], flag), &json!({"override_value": true})).await.expect(201);
    }
    for user in &users {
        let body = json!({"override_value": false, "enabled": user != &users[2], "expires_at": if user == &users[0] { json!("2030-01-02T00:00:00Z") } else { Value::Null }});
        app.admin.put(&override_at(user, "a"), &body).await;
    }
    let all = async |path: &str, field: &str| {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let page = app.admin.get(&format!("{path}{separator}limit=2{cursor}")).await.expect(200).json();
            found.extend(page["items"].as_array().unwrap().iter().map(|item| item[field].as_str().unwrap().to_owned()));
            assert!(page["total_is_exact"].as_bool().unwrap());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => {
                    assert_eq!(page["total"].as_u64().unwrap() as usize, found.len());
                    return found;
                }
            }
        }
    };
    assert_eq!(all(&overrides_of(&users[1]), "flag_name").await, ["a", "b.one", "b.two"]);
    let of_flag = all("/api/admin/feature-flags/a/user-overrides", "user_email").await;
    let mails = |names: &[&str]| names.iter().map(|n| format!("{n}@example.com")).collect::<Vec<_>>();
    assert_eq!(of_flag, mails(&["Ben", "ann", "cleo", "dan_x", "danyx"]), "by bytes, on both databases");
    let list = "/api/admin/flag-overrides";
    let newest = all(list, "user_email").await;
    assert_eq!(newest[..5], mails(&["danyx", "dan_x", "Ben", "ann", "cleo"]));
    assert_eq!(newest.len(), 7);
    assert_eq!(all(&format!("{list}?search=BEN"), "user_email").await, mails(&["Ben"]));
    assert_eq!(all(&format!("{list}?search=B.O"), "flag_name").await, ["b.one"]);
    assert_eq!(all(&format!("{list}?search=n_x"), "user_email").await, mails(&["dan_x"]), "no wildcard");
    assert_eq!(all(&format!("{list}?search=%25"), "user_email").await, [""; 0]);
    assert_eq!(all(&format!("{list}?flag_name=b.two"), "flag_name").await, ["b.two"]);
    assert_eq!(all(&format!("{list}?user_id={}", users[3]), "user_email").await, mails(&["dan_x"]));
    assert_eq!(all(&format!("{list}?status=disabled"), "user_email").await, mails(&["Ben"]));
    assert_eq!(all(&format!("{list}?status=expired"), "user_email").await, [""; 0]);
    assert_eq!(all(&format!("{list}?expires_before=2030-01-03T00:00:00Z"), "user_email").await, mails(&["cleo"]));
    assert_eq!(all(&format!("{list}?sort=expires_at"), "user_email").await[0], "cleo@example.com");
    assert_eq!(all(&format!("{list}?sort=expires_at"), "user_email").await.len(), 7);
    app.clock_to("01-02T00:00:00Z");
    assert_eq!(all(&format!("{list}?status=expired"), "user_email").await, mails(&["cleo"]));
    assert_eq!(all(&format!("{list}?status=active"), "user_email").await.len(), 5);
    let foreign = app.admin.get(&format!("{list}?limit=2")).await.json()["next_cursor"].as_str().unwrap().to_owned();
    let answer = app.admin.get(&format!("{list}?sort=expires_at&cursor={foreign}")).await;
    answer.expect_violation("/cursor", "invalid_parameter");
}

async fn an_override_wins_over_every_other_layer(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user_with("ann", "user", json!({"plan": "pro"})).await;
    let variants: Vec<_> = ["default", "scheduled", "rule", "off"].map(|id| json!({"id": id, "value": id})).into();
    app.flag(json!({"name": "f", "flag_type": "string", "variants": variants, "default": {"variant": "default"}, "off_variant": "off"})).await;
    let flag = "/api/admin/feature-flags/f";
    let is = async |value: &str, source: &str| {
        let mine = ann_calls.get("/api/flags/me/f").await.expect(200).json();
        assert_eq!((&mine["value"], &mine["source"]), (&json!(value), &json!(source)));
    };
    is("default", "default").await;
    let change = json!({"scheduled_at": "2030-01-01T00:00:01Z", "serve": {"variant": "scheduled"}});
    app.admin.post(&format!("{flag}/scheduled-changes"), &change).await.expect(201);
    is("default", "default").await;
    app.clock_to("01-01T00:00:01Z");
    is("scheduled", "scheduled_change").await;
    let rules = json!({"targeting_rules": [{"id": "r", "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}], "serve": {"variant": "rule"}}]});
    app.admin.put(&format!("{flag}/targeting-rules"), &rules).await.expect(200);
    is("rule", "targeting_rule").await;
    app.admin.patch(flag, &json!({"enabled": false})).await.expect(200);
    is("off", "disabled").await;
    app.admin.put(&override_at(&ann, "f"), &json!({"override_value": "mine"})).await.expect(201);
    is("mine", "override").await;
    app.admin.delete(&override_at(&ann, "f")).await.expect(204);
    is("off", "disabled").await;
}

async fn the_five_operations_of_the_service(kind: Kind) {
    use flags_service::{Precondition, ResourceKind, ServiceError, overrides::OverrideInput};
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    let ann = ann.parse().unwrap();
    for name in ["b", "a", "c"] {
        app.boolean_flag(name).await;
    }
    let service = app.override_service();
    let input = |expires_at: Option<&str>| OverrideInput {
        override_value: json!(true),
        enabled: true,
        reason: None,
        expires_at: expires_at.map(|at| flags_domain::Instant::parse(at).unwrap()),
    };
    for (flag, end) in [("b", None), ("a", Some("2030-01-01T00:00:05Z")), ("c", Some("2030-01-01T00:00:06Z"))] {
        service.set_override(author(), ann, flag, input(end), Precondition::None).await.unwrap();
    }
    service.set_override(author(), ann, "b", input(None), Precondition::None).await.unwrap();
    let names = async || {
        let found = service.get_user_overrides(ann).await.unwrap();
        found.into_iter().map(|record| record.user_override.flag_name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["a", "b", "c"]);
    assert_eq!(service.get_flag_value_for_user("a", ann).await.unwrap(), true);
    app.clock_to("01-01T00:00:05Z");
    assert_eq!(names().await, ["b", "c"], "all unexpired");
    assert_eq!(service.get_flag_value_for_user("a", ann).await.unwrap(), false);
    assert!(service.remove_override(author(), ann, "c").await.unwrap());
    assert!(!service.remove_override(author(), ann, "c").await.unwrap());
    let unknown = uuid::Uuid::from_u128(1);
    let missing = |error: ServiceError| if let ServiceError::NotFound(thing) = error { Some(thing) } else { None };
    assert_eq!(missing(service.get_user_overrides(unknown).await.unwrap_err()), Some(ResourceKind::User));
    assert_eq!(missing(service.get_flag_value_for_user("nope", ann).await.unwrap_err()), Some(ResourceKind::Flag));
    assert_eq!(missing(service.get_flag_value_for_user("a", unknown).await.unwrap_err()), Some(ResourceKind::User));
    let set = service.set_override(author(), unknown, "a", input(None), Precondition::None).await;
    assert_eq!(missing(set.unwrap_err()), Some(ResourceKind::User));
    // PostgreSQL's clock has not reached 2030: what is due by one clock alone is left alone.
    let due = if kind == Kind::Sqlite { 1 } else { 0 };
    assert_eq!(service.cleanup_expired_overrides().await.unwrap(), due);
    assert_eq!(service.cleanup_expired_overrides().await.unwrap(), 0);
    assert_eq!(names().await, ["b"]);
}

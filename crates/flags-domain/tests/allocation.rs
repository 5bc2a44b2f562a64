//! What [`resolve`] allocates: nothing, save for the few texts that the last test names.
#![allow(clippy::unwrap_used, reason = "tests")]

use flags_domain::{
    CompiledFlag, EvaluationContext, Flag, Instant, OverrideView, PreparedValue, ScheduledChange, Snapshot, resolve,
};
use serde_json::{Value, json};

const USER: &str = "0198c2a4-7a3e-7c11-b1a5-5d4f3c2b1a09";

fn now() -> Instant {
    Instant::parse("2026-06-01T00:00:00Z").unwrap()
}

fn context() -> EvaluationContext {
    let Value::Object(attributes) = json!({
        "plan": "pro", "seats": 12, "beta": true, "groups": ["staff", "early"], "company": {"name": "Example"},
        "signed_up": "2026-02-01T10:00:00+01:00", "version": "2.4.0-rc.1", "short_version": "2.4",
        "long_version": "2.4.0-a-long-pre-release", "essay": "word ".repeat(200),
    }) else {
        unreachable!("an object")
    };
    EvaluationContext::new(USER, Some("ann@example.com"), Some("user"), Some(now()), attributes)
}

/// A flag by default, with `changes` to its definition.
fn flag(changes: Value) -> Flag {
    let mut definition = json!({
        "name": "checkout.flow", "flag_type": "string", "enabled": true,
        "variants": [{"id": "a", "value": "classic"}, {"id": "b", "value": "one-page"}],
        "default": {"variant": "a"}, "off_variant": "a", "targeting_rules": [], "salt": "checkout.flow",
        "client_visible": true, "default_set_at": "2026-01-01T00:00:00Z", "enabled_set_at": "2026-01-01T00:00:00Z",
    });
    let Value::Object(changes) = changes else { unreachable!("an object") };
    definition.as_object_mut().unwrap().extend(changes);
    serde_json::from_value(definition).unwrap()
}

fn with_condition(condition: Value) -> CompiledFlag {
    let rule = json!({"id": "r", "conditions": [condition], "serve": {"variant": "b"}});
    CompiledFlag::compile(&flag(json!({"targeting_rules": [rule]})), &[])
}

/// How often evaluating `flag` allocates, and by which layer it is decided.
fn count(flag: &CompiledFlag, user_override: Option<OverrideView<'_>>) -> (u64, &'static str) {
    let context = context();
    let mut source = "";
    let info = allocation_counter::measure(|| {
        source = resolve(flag, &context, user_override, now()).unwrap().source.as_str();
    });
    (info.count_total, source)
}

fn check(flag: &Flag, schedule: &[ScheduledChange], user_override: Option<OverrideView<'_>>, source: &str) {
    assert_eq!(count(&CompiledFlag::compile(flag, schedule), user_override), (0, source));
}

fn check_condition(condition: Value) {
    assert_eq!(count(&with_condition(condition.clone()), None), (0, "targeting_rule"), "{condition}");
}

#[test]
fn the_allocator_counts() {
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
}

#[test]
fn an_override_allocates_nothing() {
    let value = PreparedValue::new(json!("one-page"));
    let view = |enabled, expires_at| Some(OverrideView { value: &value, enabled, expires_at });
    check(&flag(json!({})), &[], view(true, Some(now().plus_micros(1))), "override");
    check(&flag(json!({})), &[], view(true, Some(now())), "default");
    check(&flag(json!({})), &[], view(false, None), "default");
    check(&flag(json!({"flag_type": "boolean"})), &[], view(true, None), "default");
}

#[test]
fn default_and_switch_allocate_nothing() {
    check(&flag(json!({})), &[], None, "default");
    check(&flag(json!({"enabled": false})), &[], None, "disabled");
}

#[test]
fn a_split_allocates_nothing() {
    for bucket_by in [json!(null), json!("plan"), json!("company.name"), json!("seats"), json!("essay"), json!("none")]
    {
        let split = json!({"weights": {"a": 50, "b": 50}, "bucket_by": bucket_by});
        check(&flag(json!({"default": split})), &[], None, "default");
    }
}

#[test]
fn a_scheduled_change_allocates_nothing() {
    let change: ScheduledChange = serde_json::from_value(json!({
        "id": USER, "scheduled_at": "2026-05-01T00:00:00Z", "serve": {"weights": {"a": 50, "b": 50}},
    }))
    .unwrap();
    check(&flag(json!({})), &[change], None, "scheduled_change");
}

#[test]
fn conditions_allocate_nothing() {
    let condition = |attribute: &str, operator: &str, values: Value| json!({"attribute": attribute, "operator": operator, "values": values});
    check_condition(condition("plan", "equals", json!(["pro", "team"])));
    check_condition(condition("seats", "equals", json!([10, 12])));
    check_condition(condition("beta", "equals", json!([true])));
    check_condition(condition("groups", "equals", json!(["early"])));
    check_condition(condition("email", "contains", json!(["@example."])));
    check_condition(condition("email", "starts_with", json!(["ann", "bob"])));
    check_condition(condition("company.name", "ends_with", json!(["ple"])));
    for (operator, bound) in [("lt", 13), ("lte", 12), ("gt", 11), ("gte", 12)] {
        check_condition(condition("seats", operator, json!([bound])));
    }
    for attribute in ["created_at", "signed_up"] {
        check_condition(condition(attribute, "before", json!(["2026-06-02T00:00:00Z"])));
        check_condition(condition(attribute, "after", json!(["2026-01-01T00:00:00Z"])));
    }
    for (operator, bound) in [
        ("semver_lt", "2.5"),
        ("semver_lte", "2.4.0-rc.1"),
        ("semver_gt", "2"),
        ("semver_gte", "2.4.0-rc.1"),
        ("semver_eq", "2.4.0-rc.1"),
    ] {
        check_condition(condition("version", operator, json!([bound])));
    }
    check_condition(condition("role", "exists", json!([])));
}

#[test]
fn several_conditions_and_rules_that_do_not_match_allocate_nothing() {
    let condition =
        |attribute: &str, value: Value| json!({"attribute": attribute, "operator": "equals", "values": [value]});
    let rules = json!([
        {"id": "1", "conditions": [condition("plan", json!("free"))], "serve": {"variant": "a"}},
        {"id": "2", "conditions": [condition("none", json!("x"))], "serve": {"variant": "a"}},
        {"id": "3", "conditions": [condition("plan", json!("pro")), condition("seats", json!(12)), condition("beta", json!(true))],
         "serve": {"weights": {"a": 10, "b": 90}}},
    ]);
    check(&flag(json!({"targeting_rules": rules})), &[], None, "targeting_rule");
}

#[test]
fn a_user_s_flags_together_allocate_nothing() {
    let split = json!({"weights": {"a": 50, "b": 50}});
    let named = |n| (flag(json!({"name": format!("flag{n}"), "default": split})), vec![]);
    let (snapshot, context) = (Snapshot::new((0..100).map(named)), context());
    let info = allocation_counter::measure(|| {
        assert!(snapshot.iter().all(|flag| resolve(flag.compiled(), &context, None, now()).is_some()));
    });
    assert_eq!(info.count_total, 0);
}

/// The exceptions: a regular expression makes room for its search when it is first used, and again when several threads
/// use it at once; a version written short is written out, and one with a long pre-release is kept apart.
#[test]
fn what_may_allocate() {
    let pattern =
        with_condition(json!({"attribute": "email", "operator": "matches", "values": [r"^\w+@example\.com$"]}));
    assert!(count(&pattern, None).0 > 0);
    assert_eq!(count(&pattern, None), (0, "targeting_rule"));
    for attribute in ["short_version", "long_version"] {
        let newer = with_condition(json!({"attribute": attribute, "operator": "semver_gte", "values": ["2.3.0"]}));
        assert!(count(&newer, None).0 > 0);
    }
}

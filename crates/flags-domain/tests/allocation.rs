//! Checks that [`resolve`] allocates no memory, except for some regular expressions and versions.
#![allow(clippy::unwrap_used, reason = "tests")]

use flags_domain::{
    CompiledFlag, EvaluationContext, Flag, Instant, OverrideView, PreparedValue, ScheduledChange, Snapshot, StoredUser,
    resolve,
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
        unreachable!("the literal is an object")
    };
    let user = StoredUser {
        id: USER.parse().unwrap(),
        evaluation_key: USER,
        external_id: None,
        email: Some("Ann@example.com"),
        role: "user",
        created_at: now(),
    };
    EvaluationContext::user(user, attributes)
}

/// Returns a flag with a valid definition, in which `fields` replace or add fields.
fn flag_with(fields: Value) -> Flag {
    let mut definition = json!({
        "name": "checkout.flow", "flag_type": "string", "enabled": true,
        "variants": [{"id": "a", "value": "classic"}, {"id": "b", "value": "one-page"}],
        "default": {"variant": "a"}, "off_variant": "a", "targeting_rules": [], "salt": "checkout.flow",
        "client_visible": true, "default_set_at": "2026-01-01T00:00:00Z", "enabled_set_at": "2026-01-01T00:00:00Z",
    });
    let Value::Object(fields) = fields else { unreachable!("fields must be an object") };
    definition.as_object_mut().unwrap().extend(fields);
    serde_json::from_value(definition).unwrap()
}

fn flag_with_condition(condition: Value) -> CompiledFlag {
    let rule = json!({"id": "r", "conditions": [condition], "serve": {"variant": "b"}});
    CompiledFlag::compile(&flag_with(json!({"targeting_rules": [rule]})), &[])
}

/// Returns the number of allocations of one evaluation of `flag`, and the source of the result.
fn count_allocations(flag: &CompiledFlag, user_override: Option<OverrideView<'_>>) -> (u64, &'static str) {
    let context = context();
    let mut source = "";
    let info = allocation_counter::measure(|| {
        source = resolve(flag, &context, user_override, now()).unwrap().source.as_str();
    });
    (info.count_total, source)
}

fn assert_no_allocation(
    flag: &Flag,
    schedule: &[ScheduledChange],
    user_override: Option<OverrideView<'_>>,
    source: &str,
) {
    assert_eq!(count_allocations(&CompiledFlag::compile(flag, schedule), user_override), (0, source));
}

fn assert_condition_does_not_allocate(condition: Value) {
    assert_eq!(count_allocations(&flag_with_condition(condition.clone()), None), (0, "targeting_rule"), "{condition}");
}

#[test]
fn allocator_counts_allocations() {
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
}

#[test]
fn overrides_do_not_allocate() {
    let value = PreparedValue::new(json!("one-page"));
    let view = |enabled, expires_at| Some(OverrideView { value: &value, enabled, expires_at });
    assert_no_allocation(&flag_with(json!({})), &[], view(true, Some(now().plus_micros(1))), "override");
    assert_no_allocation(&flag_with(json!({})), &[], view(true, Some(now())), "default");
    assert_no_allocation(&flag_with(json!({})), &[], view(false, None), "default");
    assert_no_allocation(&flag_with(json!({"flag_type": "boolean"})), &[], view(true, None), "default");
}

#[test]
fn default_and_off_variant_do_not_allocate() {
    assert_no_allocation(&flag_with(json!({})), &[], None, "default");
    assert_no_allocation(&flag_with(json!({"enabled": false})), &[], None, "disabled");
}

#[test]
fn percentage_splits_do_not_allocate() {
    for bucket_by in [json!(null), json!("plan"), json!("company.name"), json!("seats"), json!("essay"), json!("none")]
    {
        let split = json!({"weights": {"a": 50, "b": 50}, "bucket_by": bucket_by});
        assert_no_allocation(&flag_with(json!({"default": split})), &[], None, "default");
    }
}

#[test]
fn scheduled_changes_do_not_allocate() {
    let change: ScheduledChange = serde_json::from_value(json!({
        "id": USER, "scheduled_at": "2026-05-01T00:00:00Z", "serve": {"weights": {"a": 50, "b": 50}},
    }))
    .unwrap();
    assert_no_allocation(&flag_with(json!({})), &[change], None, "scheduled_change");
}

#[test]
fn conditions_do_not_allocate() {
    let condition = |attribute: &str, operator: &str, values: Value| json!({"attribute": attribute, "operator": operator, "values": values});
    assert_condition_does_not_allocate(condition("plan", "equals", json!(["pro", "team"])));
    assert_condition_does_not_allocate(condition("seats", "equals", json!([10, 12])));
    assert_condition_does_not_allocate(condition("beta", "equals", json!([true])));
    assert_condition_does_not_allocate(condition("groups", "equals", json!(["early"])));
    assert_condition_does_not_allocate(condition("user_id", "equals", json!(["x", USER])));
    assert_condition_does_not_allocate(condition("user_id", "equals", json!(["x", USER.to_uppercase()])));
    assert_condition_does_not_allocate(condition("email", "equals", json!(["ann@EXAMPLE.com"])));
    assert_condition_does_not_allocate(condition("email", "contains", json!(["@example."])));
    assert_condition_does_not_allocate(condition("email", "starts_with", json!(["ann", "bob"])));
    assert_condition_does_not_allocate(condition("company.name", "ends_with", json!(["ple"])));
    for (operator, bound) in [("lt", 13), ("lte", 12), ("gt", 11), ("gte", 12)] {
        assert_condition_does_not_allocate(condition("seats", operator, json!([bound])));
    }
    for attribute in ["created_at", "signed_up"] {
        assert_condition_does_not_allocate(condition(attribute, "before", json!(["2026-06-02T00:00:00Z"])));
        assert_condition_does_not_allocate(condition(attribute, "after", json!(["2026-01-01T00:00:00Z"])));
    }
    for (operator, bound) in [
        ("semver_lt", "2.5"),
        ("semver_lte", "2.4.0-rc.1"),
        ("semver_gt", "2"),
        ("semver_gte", "2.4.0-rc.1"),
        ("semver_eq", "2.4.0-rc.1"),
    ] {
        assert_condition_does_not_allocate(condition("version", operator, json!([bound])));
    }
    assert_condition_does_not_allocate(condition("role", "exists", json!([])));
}

#[test]
fn rules_that_do_not_match_do_not_allocate() {
    let condition =
        |attribute: &str, value: Value| json!({"attribute": attribute, "operator": "equals", "values": [value]});
    let rules = json!([
        {"id": "1", "conditions": [condition("plan", json!("free"))], "serve": {"variant": "a"}},
        {"id": "2", "conditions": [condition("none", json!("x"))], "serve": {"variant": "a"}},
        {"id": "3", "conditions": [condition("plan", json!("pro")), condition("seats", json!(12)), condition("beta", json!(true))],
         "serve": {"weights": {"a": 10, "b": 90}}},
    ]);
    assert_no_allocation(&flag_with(json!({"targeting_rules": rules})), &[], None, "targeting_rule");
}

#[test]
fn evaluating_a_whole_snapshot_does_not_allocate() {
    let split = json!({"weights": {"a": 50, "b": 50}});
    let numbered_flag = |n| (flag_with(json!({"name": format!("flag{n}"), "default": split})), vec![]);
    let (snapshot, context) = (Snapshot::new((0..100).map(numbered_flag)), context());
    let info = allocation_counter::measure(|| {
        assert!(snapshot.iter().all(|flag| resolve(flag.compiled(), &context, None, now()).is_some()));
    });
    assert_eq!(info.count_total, 0);
}

/// A regular expression allocates its search cache on first use, and further caches if several threads use it at the
/// same time. An abbreviated version is padded into a new string. A version with a long pre-release is stored on the
/// heap.
#[test]
fn evaluation_allocates_for_the_first_regex_use_and_for_unusual_versions() {
    let matching =
        flag_with_condition(json!({"attribute": "email", "operator": "matches", "values": [r"^\w+@EXAMPLE\.com$"]}));
    assert!(count_allocations(&matching, None).0 > 0);
    assert_eq!(count_allocations(&matching, None), (0, "targeting_rule"));
    for attribute in ["short_version", "long_version"] {
        let newer = flag_with_condition(json!({"attribute": attribute, "operator": "semver_gte", "values": ["2.3.0"]}));
        assert!(count_allocations(&newer, None).0 > 0);
    }
}

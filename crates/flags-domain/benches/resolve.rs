//! Time per evaluation, compared with a baseline in the same run: one hash-map lookup plus one bucket hash.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::{collections::HashMap, hint::black_box};

use divan::Bencher;
use flags_domain::{
    Change, CompiledFlag, EvaluationContext, Flag, Instant, OverrideView, PreparedValue, Snapshot, bucket::bucket,
    resolve,
};
use serde_json::{Value, json};

fn main() {
    println!("Each line: time per call. `baseline` is one hash-map lookup by flag name plus one bucket hash.");
    divan::main();
}

const USER: &str = "0198c2a4-7a3e-7c11-b1a5-5d4f3c2b1a09";

fn context() -> EvaluationContext {
    let Value::Object(attributes) = json!({"plan": "pro", "country": "de", "app_version": "2.4.0", "seats": 12}) else {
        unreachable!("the literal is an object")
    };
    EvaluationContext::new(USER, Some("ann@example.com"), Some("user"), None, attributes)
}

fn flag(name: &str, default: Value, rules: Value) -> Flag {
    serde_json::from_value(json!({
        "name": name, "flag_type": "string", "enabled": true,
        "variants": [{"id": "a", "value": "classic"}, {"id": "b", "value": "one-page"}],
        "default": default, "off_variant": "a", "targeting_rules": rules, "salt": name, "client_visible": true,
        "default_set_at": "2026-01-01T00:00:00Z", "enabled_set_at": "2026-01-01T00:00:00Z",
    }))
    .unwrap()
}

fn flag_with_default(name: &str) -> Flag {
    flag(name, json!({"variant": "a"}), json!([]))
}

fn flag_with_split(name: &str) -> Flag {
    flag(name, json!({"weights": {"a": 50, "b": 50}}), json!([]))
}

fn flag_with_rule(name: &str) -> Flag {
    let conditions = json!([
        {"attribute": "plan", "operator": "equals", "values": ["pro", "team"]},
        {"attribute": "country", "operator": "equals", "values": ["de", "at", "ch"]},
        {"attribute": "seats", "operator": "gte", "values": [10]},
    ]);
    flag(name, json!({"variant": "a"}), json!([{"id": "r", "conditions": conditions, "serve": {"variant": "b"}}]))
}

fn now() -> Instant {
    Instant::parse("2026-06-01T00:00:00Z").unwrap()
}

fn bench_resolve(bencher: Bencher<'_, '_>, flag: &Flag, user_override: Option<OverrideView<'_>>) {
    let (flag, context, now) = (CompiledFlag::compile(flag, &[]), context(), now());
    bencher.bench_local(|| {
        let resolution = resolve(black_box(&flag), black_box(&context), black_box(user_override), now);
        resolution.unwrap().value.json().len()
    });
}

#[divan::bench(name = "1 flag: override", sample_size = 1_000)]
fn override_layer(bencher: Bencher<'_, '_>) {
    let value = PreparedValue::new(json!("one-page"));
    bench_resolve(
        bencher,
        &flag_with_default("checkout.flow"),
        Some(OverrideView { value: &value, enabled: true, expires_at: None }),
    );
}

#[divan::bench(name = "1 flag: rule with three conditions", sample_size = 1_000)]
fn rule_layer(bencher: Bencher<'_, '_>) {
    bench_resolve(bencher, &flag_with_rule("checkout.flow"), None);
}

#[divan::bench(name = "1 flag: split", sample_size = 1_000)]
fn split_default(bencher: Bencher<'_, '_>) {
    bench_resolve(bencher, &flag_with_split("checkout.flow"), None);
}

#[divan::bench(name = "1 flag: default", sample_size = 1_000)]
fn plain_default(bencher: Bencher<'_, '_>) {
    bench_resolve(bencher, &flag_with_default("checkout.flow"), None);
}

#[divan::bench(name = "baseline", sample_size = 1_000)]
fn baseline(bencher: Bencher<'_, '_>) {
    let map: HashMap<String, u32> = (0..100).map(|n| (format!("checkout.flow{n}"), n)).collect();
    bencher.bench_local(|| map[black_box("checkout.flow7")] + bucket(black_box("checkout.flow7"), black_box(USER)));
}

fn snapshot_of(count: usize) -> Snapshot {
    let constructors = [flag_with_default, flag_with_split, flag_with_rule];
    Snapshot::new((0..count).map(|n| (constructors[n % 3](&format!("area{}.flag{n}", n % 7)), vec![])))
}

#[divan::bench(name = "100 flags for a user")]
fn hundred_flags(bencher: Bencher<'_, '_>) {
    let (snapshot, context, now) = (snapshot_of(100), context(), now());
    bencher.bench_local(|| {
        let lengths = snapshot
            .iter()
            .map(|flag| resolve(flag.compiled(), black_box(&context), None, now).unwrap().value.json().len());
        lengths.sum::<usize>()
    });
}

#[divan::bench(name = "compile one flag with a rule")]
fn compile(bencher: Bencher<'_, '_>) {
    let flag = flag_with_rule("checkout.flow");
    bencher.bench_local(|| CompiledFlag::compile(black_box(&flag), &[]));
}

#[divan::bench(name = "apply one change among 1,000 flags")]
fn apply_change(bencher: Bencher<'_, '_>) {
    let mut snapshot = snapshot_of(1_000);
    let change = Change::FlagSet(Box::new(flag_with_rule("area0.flag0").into()));
    bencher.bench_local(|| snapshot.apply(black_box(&change)));
}

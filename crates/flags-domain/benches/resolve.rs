//! Benchmarks of flag evaluation. The baseline is one hash-map lookup plus one bucket hash.
//!
//! Before the benchmarks run, `main` prints the duration of evaluations that use up their budget. These evaluations use
//! the most expensive definitions and contexts that the limits allow.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::{collections::HashMap, hint::black_box, time::Instant as Moment};

use divan::Bencher;
use flags_domain::{
    Change, CompiledFlag, EvaluationBudget, EvaluationContext, Flag, Instant, MAX_UNITS_PER_FLAG, OverrideView,
    PreparedValue, Snapshot, StoredUser, bucket::bucket, resolve, resolve_within,
};
use serde_json::{Value, json};

fn main() {
    println!("Evaluations that spend their budget of {MAX_UNITS_PER_FLAG} units per flag:");
    EXPENSIVE.iter().for_each(|expensive| expensive.print());
    print_all_expensive_flags();
    println!("Each line: time per call. `baseline` is one hash-map lookup by flag name plus one bucket hash.");
    divan::main();
}

const USER: &str = "0198c2a4-7a3e-7c11-b1a5-5d4f3c2b1a09";

fn context() -> EvaluationContext {
    let Value::Object(attributes) = json!({"plan": "pro", "country": "de", "app_version": "2.4.0", "seats": 12}) else {
        unreachable!("the literal is an object")
    };
    let user = StoredUser {
        id: USER.parse().unwrap(),
        evaluation_key: USER,
        external_id: None,
        email: Some("ann@example.com"),
        role: "user",
        created_at: Instant::from_micros(0),
    };
    EvaluationContext::user(user, attributes)
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

/// A flag whose rules exceed the evaluation budget, and the context to evaluate it for. The context
/// has at most 64 KiB.
struct Expensive {
    name: &'static str,
    operator: &'static str,
    values: fn() -> Value,
    /// Returns the attribute that the conditions test. Each seed yields different texts, so that
    /// the regex engine cannot reuse states from an earlier call.
    attribute: fn(u32) -> Value,
    rules: usize,
}

const EXPENSIVE: [Expensive; 13] = [
    Expensive {
        name: "matches, product, small",
        operator: "matches",
        values: || json!(["[ab]*a[ab]{12}[^a-z]"]),
        attribute: |seed| json!(random_texts(seed, 60, 1_000)),
        rules: 50,
    },
    Expensive {
        name: "matches, product, large",
        operator: "matches",
        values: || json!(["(?:[ab]*a[ab]{9}){20}[^a-z]"]),
        attribute: |seed| json!(random_texts(seed, 150, 400)),
        rules: 50,
    },
    Expensive {
        name: "matches, product, word boundaries",
        operator: "matches",
        values: || json!([r"\b\w+\b[^\w ]"]),
        attribute: |_| json!(vec!["ä".repeat(20); 1_000]),
        rules: 50,
    },
    Expensive {
        name: "matches, linear, large",
        operator: "matches",
        values: || json!(["(?:[ab]*a){90}[^a-z]"]),
        attribute: |seed| json!(random_texts(seed, 15, 4_000)),
        rules: 50,
    },
    Expensive {
        name: "matches, linear, Unicode",
        operator: "matches",
        values: || json!([r"^\w+@example\.com$"]),
        attribute: |_| json!(vec!["ä".repeat(2_000); 15]),
        rules: 50,
    },
    Expensive {
        name: "contains, long needles",
        operator: "contains",
        values: || (0..10_000).map(|n| json!(format!("aaaaaaaaaaaaaaaa{n}"))).collect(),
        attribute: |_| json!(vec!["a".repeat(100); 500]),
        rules: 5,
    },
    Expensive {
        name: "contains, short texts",
        operator: "contains",
        values: || (0..10_000).map(|n| json!(format!("ab{n}"))).collect(),
        attribute: |_| json!(vec!["abcabcabc"; 5_000]),
        rules: 5,
    },
    Expensive {
        name: "starts_with",
        operator: "starts_with",
        values: || (0..10_000).map(|n| json!(format!("{}{n}", "a".repeat(100)))).collect(),
        attribute: |_| json!(vec!["a".repeat(100); 500]),
        rules: 5,
    },
    Expensive {
        name: "equals, many values",
        operator: "equals",
        values: || (0..10_000).map(|n| json!(format!("{}{n}", "a".repeat(100)))).collect(),
        attribute: |_| json!(vec!["a".repeat(100); 500]),
        rules: 5,
    },
    Expensive {
        name: "semver_eq, many values",
        operator: "semver_eq",
        values: || (0..10_000).map(|n| json!(format!("1.0.0-alpha.beta.{n}"))).collect(),
        attribute: |_| json!(vec!["1.0.0-alpha.beta.x"; 2_000]),
        rules: 5,
    },
    Expensive {
        name: "semver_gt, long versions",
        operator: "semver_gt",
        values: || json!([format!("1.0.0-{}", "a.".repeat(10_000) + "b")]),
        attribute: |_| json!(vec![format!("1.0.0-{}", "a.".repeat(10_000) + "a"); 3]),
        rules: 1_000,
    },
    Expensive {
        name: "before",
        operator: "before",
        values: || json!(["2000-01-01T00:00:00Z"]),
        attribute: |_| json!(vec!["2026-01-01T00:00:00.123456+01:00"; 1_500]),
        rules: 1_000,
    },
    Expensive {
        name: "gt, many rules",
        operator: "gt",
        values: || json!([1e9]),
        attribute: |_| json!(vec![1; 5_000]),
        rules: 1_000,
    },
];

impl Expensive {
    fn flag(&self, name: &str) -> Flag {
        let rule = |id: usize| {
            let condition = json!({"attribute": "a.b", "operator": self.operator, "values": (self.values)()});
            json!({"id": id.to_string(), "conditions": [condition], "serve": {"variant": "b"}})
        };
        flag(name, json!({"variant": "b"}), (0..self.rules).map(rule).collect())
    }

    fn context(&self, seed: u32) -> EvaluationContext {
        let Value::Object(attributes) = json!({"a": {"b": (self.attribute)(seed)}}) else {
            unreachable!("the literal is an object")
        };
        EvaluationContext::anonymous(USER, attributes)
    }

    fn print(&self) {
        let flag = CompiledFlag::compile(&self.flag("f"), &[]);
        let (mut spent, mut source) = (0, "");
        let time = median_time(self, |context| {
            let mut budget = EvaluationBudget::default();
            source = resolve_within(&flag, context, None, now(), &mut budget).unwrap().source.as_str();
            spent = budget.spent();
        });
        println!(
            "  {:<36} {:>6.2} ms for {spent:>8} units, {:>5.2} ns per unit ({source})",
            self.name,
            time * 1e3,
            time * 1e9 / spent as f64
        );
    }
}

/// Returns random texts of the letters `a` and `b`, which make the regex engine visit many states.
fn random_texts(seed: u32, count: usize, length: usize) -> Vec<String> {
    let mut state = seed;
    let mut letter = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 { 'a' } else { 'b' }
    };
    (0..count).map(|_| (0..length).map(|_| letter()).collect()).collect()
}

/// Returns the median time of 15 calls with different contexts, in seconds. A first call to warm up
/// caches is not measured.
fn median_time(expensive: &Expensive, mut call: impl FnMut(&EvaluationContext)) -> f64 {
    call(&expensive.context(0));
    let mut times: Vec<_> = (1..16)
        .map(|seed| {
            let context = expensive.context(seed);
            let started_at = Moment::now();
            call(&context);
            started_at.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Prints the time of one request that evaluates 20 expensive flags.
fn print_all_expensive_flags() {
    let expensive = &EXPENSIVE[0];
    let snapshot = Snapshot::new((0..20).map(|n| (expensive.flag(&format!("flag{n}")), vec![])));
    let time = median_time(expensive, |context| {
        let mut budget = EvaluationBudget::default();
        for flag in snapshot.iter() {
            black_box(resolve_within(flag.compiled(), context, None, now(), &mut budget));
        }
    });
    println!("  20 expensive flags of one request    {:>6.2} ms", time * 1e3);
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

//! Measures evaluation times: a hundred flags in each engine, and single evaluations of `flags-domain` relative to a
//! baseline.
#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::{collections::HashMap, hint::black_box};

use evaluators::{Candidate, Definition, Layer, USER, all_engines, engines, hundred_definitions, measure, version_of};
use flags_domain::{CompiledFlag, Instant, OverrideView, PreparedValue, bucket::bucket, resolve};
use serde_json::json;

const ROUNDS: usize = 2_000;

fn main() {
    println!(
        "100 flags for one user, a third each decided by the default, a percentage split, and a rule with three conditions."
    );
    println!(
        "Medians of {ROUNDS} rounds; each candidate runs once per round, and ratios compare times of the same round.\n"
    );
    let engines = all_engines(&hundred_definitions());
    println!("| engine | version | ns per flag | ratio to flags-domain | quartiles of the ratio |");
    println!("|---|---|---|---|---|");
    for (engine, measurement) in engines.iter().zip(measure(&engines, ROUNDS)) {
        let package = engine.name.split(',').next().unwrap_or_default();
        let [low, median, high] = measurement.ratio;
        println!(
            "| {} | {} | {:.0} | {median:.2} | {low:.2} to {high:.2} |",
            engine.name,
            version_of(package),
            measurement.nanoseconds / 100.0,
        );
    }
    println!("\nOne flag of flags-domain. The baseline is one hash-map lookup plus one bucket hash.\n");
    let single = single_evaluations();
    println!("| | ns | ratio to the baseline | quartiles of the ratio |");
    println!("|---|---|---|---|");
    for (candidate, measurement) in single.iter().zip(measure(&single, ROUNDS)) {
        let [low, median, high] = measurement.ratio;
        println!("| {} | {:.0} | {median:.2} | {low:.2} to {high:.2} |", candidate.name, measurement.nanoseconds);
    }
}

/// Returns the baseline (a map lookup and a hash), followed by one evaluation per layer.
fn single_evaluations() -> Vec<Candidate> {
    let map: HashMap<String, u32> =
        hundred_definitions().into_iter().zip(0..).map(|(flag, n)| (flag.name, n)).collect();
    let name = hundred_definitions().remove(7).name;
    let baseline = Candidate::new("baseline", move || {
        map[black_box(name.as_str())] + bucket(black_box(name.as_str()), black_box(USER))
    });
    vec![
        baseline,
        evaluation("override", Layer::Default, true),
        evaluation("rule with three conditions", Layer::Rule, false),
        evaluation("split", Layer::Split, false),
        evaluation("default", Layer::Default, false),
    ]
}

fn evaluation(name: &str, layer: Layer, is_overridden: bool) -> Candidate {
    let definition = Definition { name: "area0.flag7".to_owned(), layer };
    let flag = CompiledFlag::compile(&engines::flags_domain_flag(&definition), &[]);
    let (context, now) = (engines::flags_domain_context(), Instant::parse("2026-06-01T00:00:00Z").unwrap());
    let value = PreparedValue::new(json!(false));
    Candidate::new(name, move || {
        let user_override = is_overridden.then_some(OverrideView { value: &value, enabled: true, expires_at: None });
        let resolution = resolve(black_box(&flag), black_box(&context), black_box(user_override), now);
        resolution.unwrap().value.json().len()
    })
}

//! Time by turns: a hundred flags in every engine, and single evaluations of `flags-domain` beside the yardstick.
#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::{collections::HashMap, hint::black_box};

use evaluators::{Contender, Definition, Layer, USER, all, engines, hundred, measure, version_of};
use flags_domain::{CompiledFlag, Instant, OverrideView, PreparedValue, bucket::bucket, resolve};
use serde_json::json;

const ROUNDS: usize = 2_000;

fn main() {
    println!("100 flags for a user, by default, by split and by a rule with three conditions, a third each.");
    println!("Medians of {ROUNDS} rounds in which everybody runs once; ratios are taken within each round.\n");
    let engines = all(&hundred());
    println!("| engine | version | ns a flag | times flags-domain | half of the rounds |");
    println!("|---|---|---|---|---|");
    for (engine, figure) in engines.iter().zip(measure(&engines, ROUNDS)) {
        let package = engine.name.split(',').next().unwrap_or_default();
        let [low, median, high] = figure.ratio;
        println!(
            "| {} | {} | {:.0} | {median:.2} | {low:.2} to {high:.2} |",
            engine.name,
            version_of(package),
            figure.nanoseconds / 100.0,
        );
    }
    println!("\nOne flag of flags-domain beside one hash-map look-up plus one hash of the bucketing text.\n");
    let single = single_evaluations();
    println!("| | ns | times the yardstick | half of the rounds |");
    println!("|---|---|---|---|");
    for (work, figure) in single.iter().zip(measure(&single, ROUNDS)) {
        let [low, median, high] = figure.ratio;
        println!("| {} | {:.0} | {median:.2} | {low:.2} to {high:.2} |", work.name, figure.nanoseconds);
    }
}

/// The yardstick, then one evaluation by each layer.
fn single_evaluations() -> Vec<Contender> {
    let map: HashMap<String, u32> = hundred().into_iter().zip(0..).map(|(flag, n)| (flag.name, n)).collect();
    let name = hundred().remove(7).name;
    let yardstick = Contender::new("yardstick", move || {
        map[black_box(name.as_str())] + bucket(black_box(name.as_str()), black_box(USER))
    });
    vec![
        yardstick,
        one("override", Layer::Default, true),
        one("rule with three conditions", Layer::Rule, false),
        one("split", Layer::Split, false),
        one("default", Layer::Default, false),
    ]
}

fn one(name: &str, layer: Layer, is_overridden: bool) -> Contender {
    let definition = Definition { name: "area0.flag7".to_owned(), layer };
    let flag = CompiledFlag::compile(&engines::own_flag(&definition), &[]);
    let (context, now) = (engines::own_context(), Instant::parse("2026-06-01T00:00:00Z").unwrap());
    let value = PreparedValue::new(json!(false));
    Contender::new(name, move || {
        let user_override = is_overridden.then_some(OverrideView { value: &value, enabled: true, expires_at: None });
        let resolution = resolve(black_box(&flag), black_box(&context), black_box(user_override), now);
        resolution.unwrap().value.json().len()
    })
}

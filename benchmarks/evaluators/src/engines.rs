//! The engines. Each is set up from the same definitions and evaluates all flags for one user in its fastest way.
//!
//! Setup is not measured: flags are parsed and compiled, and the context is built, before the measurement.

mod eppo;
mod flags_domain;
mod flagsmith;
mod launchdarkly;
mod unleash;

use std::collections::HashMap;

pub use self::flags_domain::{context as flags_domain_context, flag as flags_domain_flag};

use crate::{
    definition::{Definition, Layer},
    interleaved::Candidate,
};

/// An evaluator with all flags and one user.
pub trait Engine {
    /// Evaluates every flag, and calls `on_result` with its name and whether it is on.
    fn evaluate(&self, on_result: impl FnMut(&str, bool));
}

/// Creates and checks all engines. The first is `flags-domain`.
pub fn all_engines(definitions: &[Definition]) -> Vec<Candidate> {
    vec![
        candidate("flags-domain", definitions, flags_domain::FlagsDomainEngine::new(definitions)),
        candidate(
            "flags-domain, one lookup by name per flag",
            definitions,
            flags_domain::FlagsDomainByNameEngine::new(definitions),
        ),
        candidate("unleash-yggdrasil", definitions, unleash::UnleashEngine::new(definitions)),
        candidate("eppo_core", definitions, eppo::EppoEngine::new(definitions)),
        candidate(
            "launchdarkly-server-sdk-evaluation",
            definitions,
            launchdarkly::LaunchDarklyEngine::new(definitions),
        ),
        candidate("flagsmith-flag-engine", definitions, flagsmith::FlagsmithEngine::new(definitions)),
    ]
}

fn candidate(name: &str, definitions: &[Definition], engine: impl Engine + 'static) -> Candidate {
    check(name, definitions, &engine);
    Candidate::new(name, move || {
        let mut on = 0_usize;
        engine.evaluate(|_, is_on| on += usize::from(is_on));
        on
    })
}

/// Panics unless every flag decided by its default or by a rule is on, and some but not all of the splits are on.
fn check(name: &str, definitions: &[Definition], engine: &impl Engine) {
    let mut results = HashMap::new();
    engine.evaluate(|flag, is_on| {
        results.insert(flag.to_owned(), is_on);
    });
    assert_eq!(results.len(), definitions.len(), "{name} does not evaluate every flag");
    let (splits, others): (Vec<_>, Vec<_>) = definitions.iter().partition(|flag| flag.layer == Layer::Split);
    for flag in others {
        assert!(results[&flag.name], "{name} evaluates {} to off", flag.name);
    }
    let on = splits.iter().filter(|flag| results[&flag.name]).count();
    assert!((1..splits.len()).contains(&on), "{name} evaluates {on} of {} splits to on", splits.len());
}

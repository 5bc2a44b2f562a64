//! The engines, each set up from the same definitions and used by its cheapest way to get all flags for one user.
//!
//! Whatever an engine can prepare beforehand is prepared beforehand: flags are parsed and compiled, the context is built.

mod eppo;
mod flags_domain;
mod flagsmith;
mod launchdarkly;
mod unleash;

use std::collections::HashMap;

pub use self::flags_domain::{context as own_context, flag as own_flag};

use crate::{
    definition::{Definition, Layer},
    turns::Contender,
};

/// Something that evaluates all flags for one user.
pub trait Engine {
    /// Evaluates every flag and shows whether it is on.
    fn evaluate(&self, show: impl FnMut(&str, bool));
}

/// All engines, checked, the first being `flags-domain`.
pub fn all(definitions: &[Definition]) -> Vec<Contender> {
    vec![
        contender("flags-domain", definitions, flags_domain::Prepared::new(definitions)),
        contender("flags-domain, each flag looked up by its name", definitions, flags_domain::ByName::new(definitions)),
        contender("unleash-yggdrasil", definitions, unleash::Prepared::new(definitions)),
        contender("eppo_core", definitions, eppo::Prepared::new(definitions)),
        contender("launchdarkly-server-sdk-evaluation", definitions, launchdarkly::Prepared::new(definitions)),
        contender("flagsmith-flag-engine", definitions, flagsmith::Prepared::new(definitions)),
    ]
}

fn contender(name: &str, definitions: &[Definition], engine: impl Engine + 'static) -> Contender {
    check(name, definitions, &engine);
    Contender::new(name, move || {
        let mut on = 0_usize;
        engine.evaluate(|_, is_on| on += usize::from(is_on));
        on
    })
}

/// Panics unless every flag by default or rule is on, and of the splits some are and some are not.
fn check(name: &str, definitions: &[Definition], engine: &impl Engine) {
    let mut seen = HashMap::new();
    engine.evaluate(|flag, is_on| {
        seen.insert(flag.to_owned(), is_on);
    });
    assert_eq!(seen.len(), definitions.len(), "{name} evaluates every flag");
    let (splits, others): (Vec<_>, Vec<_>) = definitions.iter().partition(|flag| flag.layer == Layer::Split);
    for flag in others {
        assert!(seen[&flag.name], "{name} has {} on", flag.name);
    }
    let on = splits.iter().filter(|flag| seen[&flag.name]).count();
    assert!((1..splits.len()).contains(&on), "{name} has {on} of {} splits on", splits.len());
}

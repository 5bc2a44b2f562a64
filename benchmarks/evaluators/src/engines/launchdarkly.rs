//! Engine `launchdarkly-server-sdk-evaluation`. Flags are parsed during setup and passed by reference. The LaunchDarkly
//! SDK copies each flag from a store.

use std::hint::black_box;

use launchdarkly_server_sdk_evaluation::{Context, ContextBuilder, Flag, FlagValue, Segment, Store, evaluate};
use serde_json::json;

use super::Engine;
use crate::definition::{Definition, Layer, USER};

pub(super) struct LaunchDarklyEngine {
    flags: Vec<Flag>,
    context: Context,
}

/// A store without flags and segments. The benchmark flags reference neither.
struct EmptyStore;

impl Store for EmptyStore {
    fn flag(&self, _: &str) -> Option<Flag> {
        None
    }

    fn segment(&self, _: &str) -> Option<Segment> {
        None
    }
}

impl LaunchDarklyEngine {
    pub(super) fn new(definitions: &[Definition]) -> Self {
        let context = ContextBuilder::new(USER)
            .set_string("plan", "pro")
            .set_string("country", "de")
            .set_float("seats", 12.0)
            .build()
            .unwrap();
        Self { flags: definitions.iter().map(flag).collect(), context }
    }
}

impl Engine for LaunchDarklyEngine {
    fn evaluate(&self, mut on_result: impl FnMut(&str, bool)) {
        for flag in &self.flags {
            let detail = evaluate(&EmptyStore, flag, black_box(&self.context), None);
            on_result(&flag.key, detail.value == Some(&FlagValue::Bool(true)));
        }
    }
}

fn flag(definition: &Definition) -> Flag {
    const ON: u32 = 0;
    const OFF: u32 = 1;
    let clauses = json!([
        {"attribute": "plan", "op": "in", "values": ["pro", "team"]},
        {"attribute": "country", "op": "in", "values": ["de", "at", "ch"]},
        {"attribute": "seats", "op": "greaterThanOrEqual", "values": [10]},
    ]);
    let (fallthrough, rules) = match definition.layer {
        Layer::Default => (json!({"variation": ON}), json!([])),
        Layer::Split => {
            let halves = json!([{"variation": ON, "weight": 50_000}, {"variation": OFF, "weight": 50_000}]);
            (json!({"rollout": {"variations": halves}}), json!([]))
        }
        Layer::Rule => {
            (json!({"variation": OFF}), json!([{"id": "r", "clauses": clauses, "variation": ON, "trackEvents": false}]))
        }
    };
    serde_json::from_value(json!({
        "key": definition.name, "version": 1, "on": true, "salt": definition.name,
        "variations": [true, false], "offVariation": OFF, "fallthrough": fallthrough,
        "rules": rules, "targets": [], "prerequisites": [],
    }))
    .unwrap()
}

//! Engine `flagsmith-flag-engine`. The evaluation context, including the identity, is built during setup. The
//! Flagsmith SDK copies the context for each user. The engine can only evaluate all flags at once. A rule is modelled
//! as a segment of one flag.

use std::hint::black_box;

use flagsmith_flag_engine::{engine::get_evaluation_result, engine_eval::EngineEvaluationContext};
use serde_json::{Map, Value, json};

use super::Engine;
use crate::definition::{Definition, Layer, USER};

pub(super) struct FlagsmithEngine {
    context: EngineEvaluationContext,
}

impl FlagsmithEngine {
    pub(super) fn new(definitions: &[Definition]) -> Self {
        let features: Map<_, _> =
            definitions.iter().map(|definition| (definition.name.clone(), feature(definition))).collect();
        let rules = definitions.iter().filter(|definition| definition.layer == Layer::Rule);
        let segments: Map<_, _> = rules.map(|definition| (definition.name.clone(), segment(definition))).collect();
        let context = serde_json::from_value(json!({
            "environment": {"key": "production", "name": "production"},
            "features": features,
            "segments": segments,
            "identity": {
                "identifier": USER, "key": format!("production_{USER}"),
                "traits": {"plan": "pro", "country": "de", "seats": 12},
            },
        }));
        Self { context: context.unwrap() }
    }
}

impl Engine for FlagsmithEngine {
    fn evaluate(&self, mut on_result: impl FnMut(&str, bool)) {
        for (name, flag) in &get_evaluation_result(black_box(&self.context)).flags {
            on_result(name, flag.enabled && flag.value.value != "false");
        }
    }
}

fn feature(definition: &Definition) -> Value {
    let variants = match definition.layer {
        Layer::Default | Layer::Rule => json!([]),
        Layer::Split => json!([
            {"key": "on", "value": true, "weight": 50.0},
            {"key": "off", "value": false, "weight": 50.0},
        ]),
    };
    let enabled = definition.layer != Layer::Rule;
    json!({"key": definition.name, "name": definition.name, "enabled": enabled, "value": null, "variants": variants})
}

fn segment(definition: &Definition) -> Value {
    let on = json!({"key": definition.name, "name": definition.name, "enabled": true, "value": null, "priority": 0.0});
    json!({
        "key": definition.name, "name": definition.name, "overrides": [on],
        "rules": [{"type": "ALL", "conditions": [
            {"property": "plan", "operator": "IN", "value": ["pro", "team"]},
            {"property": "country", "operator": "IN", "value": ["de", "at", "ch"]},
            {"property": "seats", "operator": "GREATER_THAN_INCLUSIVE", "value": "10"},
        ]}],
    })
}

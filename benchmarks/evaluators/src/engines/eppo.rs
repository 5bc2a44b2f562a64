//! Engine `eppo_core`. The configuration is compiled during setup. `get_assignment` looks up one flag by name. Events
//! are disabled (`doLog` is false), and the current time is read once. The Eppo SDK reads the clock for each flag.

use std::{hint::black_box, sync::Arc};

use chrono::{DateTime, Utc};
use eppo_core::{
    AttributeValue, Attributes, Configuration, SdkMetadata, Str,
    eval::get_assignment,
    ufc::{AssignmentValue, UniversalFlagConfig, VariationType},
};
use serde_json::{Map, Value, json};

use super::Engine;
use crate::definition::{Definition, Layer, USER};

pub(super) struct EppoEngine {
    names: Vec<String>,
    configuration: Configuration,
    subject: Str,
    attributes: Arc<Attributes>,
    now: DateTime<Utc>,
}

impl EppoEngine {
    pub(super) fn new(definitions: &[Definition]) -> Self {
        let flags: Map<_, _> =
            definitions.iter().map(|definition| (definition.name.clone(), flag(definition))).collect();
        let wire = json!({
            "createdAt": "2026-01-01T00:00:00Z", "format": "SERVER", "environment": {"name": "production"},
            "flags": flags,
        });
        let flags =
            UniversalFlagConfig::from_json(SdkMetadata { name: "benchmark", version: "0" }, wire.to_string().into())
                .unwrap();
        let attributes = [
            (Str::from("plan"), AttributeValue::categorical("pro")),
            (Str::from("country"), AttributeValue::categorical("de")),
            (Str::from("seats"), AttributeValue::numeric(12.0)),
        ];
        Self {
            names: definitions.iter().map(|definition| definition.name.clone()).collect(),
            configuration: Configuration::from_server_response(flags, None),
            subject: Str::from(USER),
            attributes: Arc::new(attributes.into_iter().collect()),
            now: Utc::now(),
        }
    }
}

impl Engine for EppoEngine {
    fn evaluate(&self, mut on_result: impl FnMut(&str, bool)) {
        for name in &self.names {
            let assignment = get_assignment(
                Some(&self.configuration),
                name,
                black_box(&self.subject),
                black_box(&self.attributes),
                Some(VariationType::Boolean),
                self.now,
            );
            on_result(name, matches!(assignment.unwrap().unwrap().value, AssignmentValue::Boolean(true)));
        }
    }
}

fn flag(definition: &Definition) -> Value {
    let always = |variation: &str| json!([{"variationKey": variation, "shards": []}]);
    let allocation =
        |key: &str, rules: Value, splits: Value| json!({"key": key, "rules": rules, "splits": splits, "doLog": false});
    let allocations = match definition.layer {
        Layer::Default => json!([allocation("default", json!([]), always("on"))]),
        // The second split serves all remaining users. Without shards, it needs no further hash.
        Layer::Split => {
            let half = json!([{"salt": definition.name, "ranges": [{"start": 0, "end": 5_000}]}]);
            let splits = json!([{"variationKey": "on", "shards": half}, {"variationKey": "off", "shards": []}]);
            json!([allocation("split", json!([]), splits)])
        }
        Layer::Rule => {
            let rules = json!([{"conditions": [
                {"attribute": "plan", "operator": "ONE_OF", "value": ["pro", "team"]},
                {"attribute": "country", "operator": "ONE_OF", "value": ["de", "at", "ch"]},
                {"attribute": "seats", "operator": "GTE", "value": 10},
            ]}]);
            json!([allocation("rule", rules, always("on")), allocation("default", json!([]), always("off"))])
        }
    };
    json!({
        "key": definition.name, "enabled": true, "variationType": "BOOLEAN", "totalShards": 10_000,
        "variations": {"on": {"key": "on", "value": true}, "off": {"key": "off", "value": false}},
        "allocations": allocations,
    })
}

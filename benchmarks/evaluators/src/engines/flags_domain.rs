//! Engine `flags-domain`, the evaluator of this project.

use std::hint::black_box;

use flags_domain::{CompiledFlag, EvaluationContext, Flag, Instant, Snapshot, StoredUser, resolve};
use serde_json::{Value, json};

use super::Engine;
use crate::definition::{Definition, Layer, USER};

/// Evaluates all flags by iterating over a snapshot.
pub(super) struct FlagsDomainEngine {
    snapshot: Snapshot,
    context: EvaluationContext,
    now: Instant,
}

impl FlagsDomainEngine {
    pub(super) fn new(definitions: &[Definition]) -> Self {
        Self {
            snapshot: Snapshot::new(definitions.iter().map(|definition| (flag(definition), vec![]))),
            context: context(),
            now: Instant::parse("2026-06-01T00:00:00Z").unwrap(),
        }
    }

    fn is_on(&self, flag: &CompiledFlag) -> bool {
        resolve(flag, black_box(&self.context), None, self.now).unwrap().value.value() == &Value::Bool(true)
    }
}

impl Engine for FlagsDomainEngine {
    fn evaluate(&self, mut on_result: impl FnMut(&str, bool)) {
        for flag in self.snapshot.iter() {
            on_result(flag.flag().name.as_str(), self.is_on(flag.compiled()));
        }
    }
}

/// Evaluates the same flags with one lookup by name per flag, like the engines that cannot iterate.
pub(super) struct FlagsDomainByNameEngine {
    names: Vec<String>,
    engine: FlagsDomainEngine,
}

impl FlagsDomainByNameEngine {
    pub(super) fn new(definitions: &[Definition]) -> Self {
        let names = definitions.iter().map(|definition| definition.name.clone()).collect();
        Self { names, engine: FlagsDomainEngine::new(definitions) }
    }
}

impl Engine for FlagsDomainByNameEngine {
    fn evaluate(&self, mut on_result: impl FnMut(&str, bool)) {
        for name in &self.names {
            on_result(name, self.engine.is_on(self.engine.snapshot.get(name).unwrap().compiled()));
        }
    }
}

/// Returns the context of the benchmark user.
pub fn context() -> EvaluationContext {
    let Value::Object(attributes) = json!({"plan": "pro", "country": "de", "seats": 12}) else {
        unreachable!("the literal is an object")
    };
    let user = StoredUser {
        id: USER.parse().expect("the id is a UUID"),
        evaluation_key: USER,
        external_id: None,
        email: Some("ann@example.com"),
        role: "user",
        created_at: Instant::from_micros(0),
    };
    EvaluationContext::user(user, attributes)
}

/// Converts a definition to a flag of `flags-domain`.
pub fn flag(definition: &Definition) -> Flag {
    let conditions = json!([
        {"attribute": "plan", "operator": "equals", "values": ["pro", "team"]},
        {"attribute": "country", "operator": "equals", "values": ["de", "at", "ch"]},
        {"attribute": "seats", "operator": "gte", "values": [10]},
    ]);
    let (default, rules) = match definition.layer {
        Layer::Default => (json!({"variant": "on"}), json!([])),
        Layer::Split => (json!({"weights": {"on": 50, "off": 50}}), json!([])),
        Layer::Rule => {
            (json!({"variant": "off"}), json!([{"id": "r", "conditions": conditions, "serve": {"variant": "on"}}]))
        }
    };
    serde_json::from_value(json!({
        "name": definition.name, "flag_type": "boolean", "enabled": true,
        "variants": [{"id": "on", "value": true}, {"id": "off", "value": false}],
        "default": default, "off_variant": "off", "targeting_rules": rules,
        "salt": definition.name, "client_visible": true,
        "default_set_at": "2026-01-01T00:00:00Z", "enabled_set_at": "2026-01-01T00:00:00Z",
    }))
    .unwrap()
}

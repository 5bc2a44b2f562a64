//! Engine `unleash-yggdrasil`. The state is compiled during setup. `check_enabled` looks up one flag by name. It
//! neither copies the flag nor records metrics.

use std::{collections::HashMap, hint::black_box};

use serde_json::{Value, json};
use unleash_yggdrasil::{Context, EngineState, UpdateMessage, state::EnrichedContext};

use super::Engine;
use crate::definition::{Definition, Layer, USER};

pub(super) struct UnleashEngine {
    names: Vec<String>,
    state: EngineState,
    context: Context,
}

impl UnleashEngine {
    pub(super) fn new(definitions: &[Definition]) -> Self {
        let features: Vec<_> = definitions.iter().map(feature).collect();
        let message: UpdateMessage = serde_json::from_value(json!({"version": 2, "features": features})).unwrap();
        let state = EngineState::default();
        assert!(state.take_state(message).is_none(), "the state compiles with warnings");
        let properties = [("plan", "pro"), ("country", "de"), ("seats", "12")];
        let context = Context {
            user_id: Some(USER.to_owned()),
            properties: Some(HashMap::from(properties.map(|(key, value)| (key.to_owned(), value.to_owned())))),
            ..Context::default()
        };
        Self { names: definitions.iter().map(|definition| definition.name.clone()).collect(), state, context }
    }
}

impl Engine for UnleashEngine {
    fn evaluate(&self, mut on_result: impl FnMut(&str, bool)) {
        for name in &self.names {
            let context = EnrichedContext::from(black_box(&self.context), name, None);
            on_result(name, self.state.check_enabled(&context).unwrap());
        }
    }
}

fn feature(definition: &Definition) -> Value {
    let strategies = match definition.layer {
        Layer::Default => json!([]),
        Layer::Split => json!([{
            "name": "flexibleRollout",
            "parameters": {"rollout": "50", "stickiness": "userId", "groupId": definition.name},
        }]),
        Layer::Rule => json!([{"name": "default", "constraints": [
            {"contextName": "plan", "operator": "IN", "values": ["pro", "team"]},
            {"contextName": "country", "operator": "IN", "values": ["de", "at", "ch"]},
            {"contextName": "seats", "operator": "NUM_GTE", "value": "10"},
        ]}]),
    };
    json!({"name": definition.name, "enabled": true, "strategies": strategies})
}

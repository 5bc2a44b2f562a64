//! Compares the hand-written JSON with its documented types.

use flags_domain::{FlagName, Revision};
use flags_service::{evaluation::EvaluatedFlag, stream_position::StreamPosition};
use proptest::prelude::*;
use serde_json::Value;
use uuid::Uuid;

use super::{
    EvaluatedState, OwnFlagResponse, OwnFlagsChange, OwnFlagsResponse, build_change, build_own_flag_body,
    build_own_flags_body,
};
use crate::generated::{Scenario, any_instant, any_reasons, any_scenario, check_type};

const REVISION: Revision = Revision { epoch: Uuid::from_u128(7), number: 42 };

fn state_of(scenario: &Scenario, stale: bool) -> EvaluatedState {
    EvaluatedState { user_id: Uuid::from_u128(1), revision: REVISION, evaluated_at: scenario.now, stale }
}

/// Checks that the object has exactly the flag names and values of `expected`.
fn check_names_and_values(results: &Value, expected: &[EvaluatedFlag<'_>]) -> Result<(), TestCaseError> {
    prop_assert_eq!(results.as_object().map(|results| results.len()), Some(expected.len()));
    for evaluated in expected {
        prop_assert_eq!(&results[evaluated.flag.name().as_str()]["value"], evaluated.resolution.value.value());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_of_all_flags_has_exactly_the_documented_fields(
        scenario in any_scenario(),
        stale in any::<bool>(),
        reasons in any_reasons(),
    ) {
        let results = scenario.evaluated();
        let body = build_own_flags_body(&state_of(&scenario, stale), results.iter().copied(), results.len(), reasons);
        let value = check_type::<OwnFlagsResponse>(&body.body)?;
        check_names_and_values(&value["flags"], &results)?;
        prop_assert!(body.content().starts_with(b",\"flags\":"), "the entity tag must not cover the revision");
    }

    #[test]
    fn json_of_one_flag_has_exactly_the_documented_fields(
        scenario in any_scenario(),
        stale in any::<bool>(),
        reasons in any_reasons(),
    ) {
        for evaluated in scenario.evaluated() {
            let body = build_own_flag_body(&state_of(&scenario, stale), &evaluated, reasons);
            let value = check_type::<OwnFlagResponse>(&body.body)?;
            prop_assert_eq!(&value["value"], evaluated.resolution.value.value());
            prop_assert!(body.content().starts_with(b",\"valid_until\":"), "the entity tag must not cover the revision");
        }
    }

    #[test]
    fn json_of_a_change_event_has_exactly_the_documented_fields(
        scenario in any_scenario(),
        reasons in any_reasons(),
        valid_until in prop::option::of(any_instant()),
        unset in prop::collection::vec("[a-z]{1,3}", 0..3),
    ) {
        let results = scenario.evaluated();
        let position = StreamPosition { revision: REVISION, evaluated_at: scenario.now };
        let unset: Vec<_> = unset.iter().map(|name| FlagName::new(name).unwrap()).collect();
        let unset: Vec<_> = unset.iter().collect();
        let data = build_change(&position, results.iter().copied(), &unset, valid_until, reasons);
        let value = check_type::<OwnFlagsChange>(&data)?;
        check_names_and_values(&value["set"], &results)?;
    }
}

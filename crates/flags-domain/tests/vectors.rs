//! Walks the language-neutral vectors in `tests/vectors` of the workspace.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashSet, fs, path::PathBuf};

use flags_domain::{
    EvaluationContext, Flag, Instant, OverrideView, PreparedValue, ScheduledChange, Snapshot, Source, bucket::bucket,
    resolve, same_value,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

#[derive(Deserialize)]
struct File<C> {
    cases: Vec<C>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    flag: Flag,
    scheduled_changes: Vec<ScheduledChange>,
    context: Context,
    #[serde(rename = "override")]
    user_override: Option<Override>,
    now: Instant,
    expect: Option<Expected>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    targeting_key: String,
    email: Option<String>,
    role: Option<String>,
    created_at: Option<Instant>,
    attributes: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Override {
    override_value: Value,
    enabled: Option<bool>,
    expires_at: Option<Instant>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    value: Value,
    variant: Option<String>,
    source: String,
    rule_id: Option<String>,
    scheduled_change_id: Option<Uuid>,
    valid_until: Option<Instant>,
}

impl Case {
    /// What differs from the expectation, if anything.
    fn difference(&self) -> Option<String> {
        let snapshot = Snapshot::new([(self.flag.clone(), self.scheduled_changes.clone())]);
        let flag = snapshot.get(&self.flag.name).unwrap().compiled();
        let value = self.user_override.as_ref().map(|o| PreparedValue::new(o.override_value.clone()));
        let view = self.user_override.as_ref().zip(value.as_ref()).map(|(o, value)| OverrideView {
            value,
            enabled: o.enabled.unwrap_or(true),
            expires_at: o.expires_at,
        });
        let known = &self.context;
        let context = EvaluationContext::new(
            &known.targeting_key,
            known.email.as_deref(),
            known.role.as_deref(),
            known.created_at,
            known.attributes.clone(),
        );
        let got = resolve(flag, &context, view, self.now);
        let same = match (&got, &self.expect) {
            (None, None) => true,
            (Some(got), Some(expected)) => {
                let (rule_id, change_id) = match got.source {
                    Source::TargetingRule { rule_id } => (Some(rule_id), None),
                    Source::ScheduledChange { id } => (None, Some(id)),
                    _ => (None, None),
                };
                same_value(got.value.value(), &expected.value)
                    && got.variant.map(|v| v.id()) == expected.variant.as_deref()
                    && got.source.as_str() == expected.source
                    && rule_id == expected.rule_id.as_deref()
                    && change_id == expected.scheduled_change_id
                    && got.valid_until == expected.valid_until
            }
            _ => false,
        };
        (!same).then(|| format!("{}: expected {:?}, got {got:?}", self.name, self.expect))
    }
}

fn read<C: for<'de> Deserialize<'de>>(file: &str) -> Vec<C> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str::<File<C>>(&text).unwrap_or_else(|e| panic!("{file}: {e}")).cases
}

#[test]
fn every_case_resolves_as_written() {
    let files = ["order.json", "override.json", "schedule.json", "operators.json", "bucketing.json", "types.json"];
    let cases: Vec<Case> = files.iter().flat_map(|file| read(file)).collect();
    let names: HashSet<_> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "names are unique");
    assert!(cases.len() >= 700, "the vectors are all there");
    let differences: Vec<_> = cases.iter().filter_map(Case::difference).collect();
    assert!(differences.is_empty(), "{} cases differ:\n{}", differences.len(), differences.join("\n"));
}

#[derive(Deserialize)]
struct HashCase {
    text: String,
    hash: u32,
    bucket: u32,
}

#[test]
fn every_text_falls_into_its_bucket() {
    for case in read::<HashCase>("hashes.json") {
        let (salt, value) = case.text.split_once(':').unwrap();
        assert_eq!(bucket(salt, value), case.bucket, "{}", case.text);
        assert_eq!((u64::from(case.hash) * 100_000) >> 32, u64::from(case.bucket), "{}", case.text);
    }
}

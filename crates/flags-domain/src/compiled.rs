//! Flags prepared for evaluation.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::{
    bucket::bucket,
    condition::{CompiledCondition, ConditionFailure},
    context::{Attribute, EvaluationContext},
    flag::Flag,
    instant::Instant,
    name::FlagName,
    resolve::OverrideOutcome,
    rule::TargetingRule,
    schedule::ScheduledChange,
    serve::{Serve, Weight},
    user_override::{OverrideStatus, OverrideView},
    value::{FlagType, PreparedValue, same_value},
};

/// A flag with its schedule, prepared so that resolving it neither allocates nor fails.
///
/// A definition that cannot be compiled is held as its failure: it serves overrides and nothing else.
#[derive(Debug)]
pub struct CompiledFlag {
    name: FlagName,
    flag_type: FlagType,
    floating: bool,
    client_visible: bool,
    archived: bool,
    layers: Result<Layers, CompileFailure>,
}

/// Why a flag could not be compiled. Writes refuse such definitions; one can only come from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct CompileFailure {
    /// Where: like a JSON pointer, but rules stand under their ids.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

/// A variant with its id and value as JSON text.
#[derive(Debug)]
pub struct CompiledVariant {
    id: Box<str>,
    id_json: Box<str>,
    value: PreparedValue,
}

impl CompiledVariant {
    /// The variant's id.
    pub const fn id(&self) -> &str {
        &self.id
    }

    /// The id as JSON text, quotes included.
    pub const fn id_json(&self) -> &str {
        &self.id_json
    }

    /// The variant's value.
    pub const fn value(&self) -> &PreparedValue {
        &self.value
    }
}

/// Everything below the override.
#[derive(Debug)]
pub(crate) struct Layers {
    pub(crate) variants: Box<[CompiledVariant]>,
    pub(crate) off_variant: usize,
    pub(crate) rules: Box<[CompiledRule]>,
    pub(crate) default: CompiledServe,
    /// Due or pending changes of the default that a later setting by hand does not undo, by instant.
    pub(crate) serve_steps: Box<[ServeStep]>,
    pub(crate) enabled: bool,
    /// The same for the switch.
    pub(crate) switch_steps: Box<[SwitchStep]>,
    salt: Box<str>,
}

#[derive(Debug)]
pub(crate) struct CompiledRule {
    pub(crate) id: Box<str>,
    conditions: Box<[CompiledCondition]>,
    pub(crate) serve: CompiledServe,
}

#[derive(Debug)]
pub(crate) struct ServeStep {
    pub(crate) at: Instant,
    pub(crate) change_id: Uuid,
    pub(crate) serve: CompiledServe,
}

#[derive(Debug)]
pub(crate) struct SwitchStep {
    pub(crate) at: Instant,
    pub(crate) change_id: Uuid,
    pub(crate) enabled: bool,
}

#[derive(Debug)]
pub(crate) enum CompiledServe {
    Variant(usize),
    Split {
        bucket_by: Option<Box<str>>,
        /// Upper bounds (exclusive) in the order of the flag's variants; variants without weight are left out.
        ranges: Box<[(u32, usize)]>,
    },
}

impl CompiledServe {
    pub(crate) const fn is_split(&self) -> bool {
        matches!(self, Self::Split { .. })
    }

    fn reads_attributes(&self) -> bool {
        matches!(self, Self::Split { bucket_by: Some(attribute), .. } if &**attribute != "user_id")
    }
}

impl CompiledFlag {
    /// Compiles a definition and the scheduled changes of that flag.
    pub fn compile(flag: &Flag, schedule: &[ScheduledChange]) -> Self {
        Self {
            name: flag.name.clone(),
            flag_type: flag.flag_type,
            floating: flag.is_floating(),
            client_visible: flag.client_visible,
            archived: flag.archived_at.is_some(),
            layers: Layers::compile(flag, schedule),
        }
    }

    /// The flag's name.
    pub const fn name(&self) -> &FlagName {
        &self.name
    }

    /// The flag's type.
    pub const fn flag_type(&self) -> FlagType {
        self.flag_type
    }

    /// Whether it is a number flag any variant of which was written with a fraction or an exponent: then all of its values
    /// are meant as floating ones, whole ones too.
    pub const fn is_floating(&self) -> bool {
        self.floating
    }

    /// Whether users themselves get it.
    pub const fn client_visible(&self) -> bool {
        self.client_visible
    }

    /// Whether users see that there is such a flag: it is visible to clients and not archived.
    pub const fn is_shown(&self) -> bool {
        self.client_visible && !self.archived
    }

    /// Whether it is archived: no result for anybody.
    pub const fn is_archived(&self) -> bool {
        self.archived
    }

    /// The instants at which its schedule may change what it gives, past ones included.
    pub fn instants(&self) -> impl Iterator<Item = Instant> {
        self.layers().into_iter().flat_map(|layers| {
            let served = layers.serve_steps.iter().map(|step| step.at);
            served.chain(layers.switch_steps.iter().map(|step| step.at))
        })
    }

    /// Why it could not be compiled, if so.
    pub fn failure(&self) -> Option<&CompileFailure> {
        self.layers.as_ref().err()
    }

    /// Whether what it gives can depend on more of the context than the targeting key.
    pub fn reads_attributes(&self) -> bool {
        self.layers().is_some_and(Layers::reads_attributes)
    }

    pub(crate) fn layers(&self) -> Option<&Layers> {
        self.layers.as_ref().ok()
    }

    /// What becomes of an override of this flag at `now`.
    pub(crate) fn override_outcome(&self, found: OverrideView<'_>, now: Instant) -> OverrideOutcome {
        match found.status(now) {
            OverrideStatus::Expired => OverrideOutcome::Expired,
            OverrideStatus::Disabled => OverrideOutcome::Disabled,
            OverrideStatus::Active if self.flag_type.accepts(found.value.value()) => OverrideOutcome::Decided,
            OverrideStatus::Active => OverrideOutcome::TypeMismatch,
        }
    }

    /// The first variant with this value.
    pub(crate) fn variant_with(&self, value: &PreparedValue) -> Option<&CompiledVariant> {
        let variants = &self.layers()?.variants;
        variants.iter().find(|variant| same_value(variant.value.value(), value.value()))
    }
}

impl Layers {
    fn compile(flag: &Flag, schedule: &[ScheduledChange]) -> Result<Self, CompileFailure> {
        let variants = Variants(&flag.variants.iter().map(|variant| variant.id.as_str()).collect::<Vec<_>>());
        let mut live: Vec<_> = schedule.iter().filter(|change| change.cancelled_at.is_none()).collect();
        live.sort_by_key(|change| change.scheduled_at);
        let served = live.iter().filter(|change| change.serve.is_some() && change.scheduled_at > flag.default_set_at);
        let mut served = served.filter_map(|change| Some((change, change.serve.as_ref()?))).peekable();
        let mut serve_steps = Vec::new();
        while let Some((change, serve)) = served.next() {
            match variants.serve(serve, "/scheduled_changes") {
                Ok(serve) => serve_steps.push(ServeStep { at: change.scheduled_at, change_id: change.id, serve }),
                // Its variant was removed once a later change had taken its place; it will never act again.
                Err(_) if served.peek().is_some() => {}
                Err(failure) => return Err(failure),
            }
        }
        let switch_steps =
            live.iter().filter(|change| change.scheduled_at > flag.enabled_set_at).filter_map(|change| {
                Some(SwitchStep { at: change.scheduled_at, change_id: change.id, enabled: change.enabled? })
            });
        let rules = flag.targeting_rules.iter().filter(|rule| rule.enabled);
        Ok(Self {
            variants: flag.variants.iter().map(CompiledVariant::new).collect(),
            off_variant: variants.index(&flag.off_variant, "/off_variant")?,
            rules: rules.map(|rule| CompiledRule::compile(rule, &variants)).collect::<Result<_, _>>()?,
            default: variants.serve(&flag.default, "/default")?,
            serve_steps: serve_steps.into(),
            enabled: flag.enabled,
            switch_steps: switch_steps.collect(),
            salt: flag.salt.as_str().into(),
        })
    }

    /// Whether the flag is on at `now`, and when that changes next.
    pub(crate) fn switch_at(&self, now: Instant) -> (bool, Option<Instant>) {
        let (set_by, later) = self.switch_steps_at(now);
        let is_on = set_by.map_or(self.enabled, |step| step.enabled);
        (is_on, later.iter().find(|step| step.enabled != is_on).map(|step| step.at))
    }

    /// The change of the switch that is in force at `now`, and those to come.
    pub(crate) fn switch_steps_at(&self, now: Instant) -> (Option<&SwitchStep>, &[SwitchStep]) {
        let due = self.switch_steps.partition_point(|step| step.at <= now);
        (due.checked_sub(1).map(|last| &self.switch_steps[last]), &self.switch_steps[due..])
    }

    /// The change of the default that is in force at `now`, and when the next one comes.
    pub(crate) fn serve_at(&self, now: Instant) -> (Option<&ServeStep>, Option<Instant>) {
        let due = self.serve_steps.partition_point(|step| step.at <= now);
        let in_force = due.checked_sub(1).map(|last| &self.serve_steps[last]);
        (in_force, self.serve_steps.get(due).map(|step| step.at))
    }

    fn reads_attributes(&self) -> bool {
        let steps = self.serve_steps.iter().map(|step| &step.serve);
        let serves = self.rules.iter().map(|rule| &rule.serve).chain(steps).chain([&self.default]);
        self.rules.iter().any(CompiledRule::reads_attributes) || serves.into_iter().any(CompiledServe::reads_attributes)
    }

    /// The variant that `serve` gives to `context`. One hash at most.
    pub(crate) fn pick(&self, serve: &CompiledServe, context: &EvaluationContext) -> &CompiledVariant {
        let index = match serve {
            CompiledServe::Variant(index) => *index,
            CompiledServe::Split { bucket_by, ranges } => {
                let bucket = self.bucket(bucket_by.as_deref(), context);
                let hit = bucket.and_then(|bucket| ranges.iter().find(|(upper, _)| bucket < *upper));
                hit.or(ranges.first()).map_or(0, |(_, index)| *index)
            }
        };
        &self.variants[index]
    }

    /// The bucket of `context`, or `None` if it has nothing to hash.
    pub(crate) fn bucket(&self, bucket_by: Option<&str>, context: &EvaluationContext) -> Option<u32> {
        let Some(name) = bucket_by else { return Some(bucket(&self.salt, context.targeting_key())) };
        let attribute = context.attribute(name)?;
        if let Some(text) = attribute.text() {
            return Some(bucket(&self.salt, text));
        }
        self.bucket_of_integer(attribute)
    }

    fn bucket_of_integer(&self, attribute: Attribute<'_>) -> Option<u32> {
        use std::fmt::Write as _;
        let mut digits = StackText::default();
        write!(digits, "{}", attribute.integer()?).ok()?;
        Some(bucket(&self.salt, digits.as_str()))
    }
}

/// Room for the decimal form of any 64-bit integer.
#[derive(Default)]
struct StackText {
    bytes: smallvec::SmallVec<[u8; 24]>,
}

impl StackText {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

impl std::fmt::Write for StackText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl CompiledVariant {
    fn new(variant: &crate::flag::Variant) -> Self {
        Self {
            id: variant.id.as_str().into(),
            id_json: serde_json::Value::from(variant.id.as_str()).to_string().into(),
            value: PreparedValue::new(variant.value.clone()),
        }
    }
}

impl CompiledRule {
    fn compile(rule: &TargetingRule, variants: &Variants<'_>) -> Result<Self, CompileFailure> {
        let at = format!("/targeting_rules/{}", rule.id);
        let compile = |condition| {
            CompiledCondition::compile(condition).map_err(|violations| {
                let detail = violations.first().map_or_else(String::new, |violation| violation.detail.clone());
                CompileFailure { pointer: at.clone(), detail }
            })
        };
        Ok(Self {
            id: rule.id.as_str().into(),
            conditions: rule.conditions.iter().map(compile).collect::<Result<_, _>>()?,
            serve: variants.serve(&rule.serve, &at)?,
        })
    }

    /// Whether all conditions hold.
    pub(crate) fn matches(&self, context: &EvaluationContext) -> bool {
        self.conditions.iter().all(|condition| condition.failure(context).is_none())
    }

    /// The first condition that does not hold, and why; `None` if all hold.
    pub(crate) fn first_failure(&self, context: &EvaluationContext) -> Option<(usize, ConditionFailure)> {
        let mut conditions = self.conditions.iter().enumerate();
        conditions.find_map(|(index, condition)| Some((index, condition.failure(context)?)))
    }

    fn reads_attributes(&self) -> bool {
        self.conditions.iter().any(CompiledCondition::reads_attributes)
    }
}

/// The ids of a flag's variants, in order.
struct Variants<'f>(&'f [&'f str]);

impl Variants<'_> {
    fn index(&self, id: &str, pointer: &str) -> Result<usize, CompileFailure> {
        self.0.iter().position(|variant| *variant == id).ok_or_else(|| CompileFailure {
            pointer: pointer.to_owned(),
            detail: format!("the flag has no variant {id:?}"),
        })
    }

    fn serve(&self, serve: &Serve, pointer: &str) -> Result<CompiledServe, CompileFailure> {
        match serve {
            Serve::Variant(id) => self.index(id, pointer).map(CompiledServe::Variant),
            Serve::Split { weights, bucket_by } => self.split(weights, bucket_by.as_deref(), pointer),
        }
    }

    fn split(
        &self,
        weights: &BTreeMap<String, Weight>,
        bucket_by: Option<&str>,
        pointer: &str,
    ) -> Result<CompiledServe, CompileFailure> {
        for id in weights.keys() {
            self.index(id, pointer)?;
        }
        let weight = |id: &str| weights.get(id).map_or(0, |weight| weight.thousandths());
        let mut upper = 0_u32;
        let mut ranges = Vec::new();
        for (index, id) in self.0.iter().enumerate().filter(|(_, id)| weight(id) > 0) {
            upper = upper.saturating_add(weight(id));
            ranges.push((upper, index));
        }
        if ranges.is_empty() {
            return Err(CompileFailure { pointer: pointer.to_owned(), detail: "all weights are 0".to_owned() });
        }
        Ok(CompiledServe::Split { bucket_by: bucket_by.map(Into::into), ranges: ranges.into() })
    }
}

//! Flags compiled for evaluation.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::{
    bucket::bucket,
    budget::{BudgetExhausted, FlagBudget},
    condition::{CompiledCondition, ConditionFailure},
    context::{Attribute, EvaluationContext},
    definition::UnreadableFlag,
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

/// A flag with its scheduled changes, compiled so that [`resolve()`](crate::resolve()) neither parses nor validates.
///
/// A flag that does not compile, or whose definition cannot be read, keeps its [`CompileError`]. Only an active
/// override supplies a value for such a flag.
#[derive(Debug)]
pub struct CompiledFlag {
    name: FlagName,
    /// `None` if the type of an unreadable flag is not known.
    flag_type: Option<FlagType>,
    floating_point: bool,
    client_visible: bool,
    archived: bool,
    layers: Result<CompiledLayers, CompileError>,
}

/// Reason why a flag does not compile or cannot be read. For a definition that can be read, [`Flag::check`] reports the
/// same problems with precise JSON pointers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct CompileError {
    /// Location in the definition: a JSON pointer, except that a rule is identified by its id
    /// instead of its index. Empty if the definition cannot be read.
    pub pointer: String,
    /// Description of the problem.
    pub detail: String,
}

/// A variant whose id and value are also stored as JSON text.
#[derive(Debug)]
pub struct CompiledVariant {
    id: Box<str>,
    id_json: Box<str>,
    value: PreparedValue,
}

impl CompiledVariant {
    /// Id of the variant, unique within the flag.
    pub const fn id(&self) -> &str {
        &self.id
    }

    /// Id as a JSON string, including the quotes.
    pub const fn id_json(&self) -> &str {
        &self.id_json
    }

    /// Value of the variant.
    pub const fn value(&self) -> &PreparedValue {
        &self.value
    }
}

/// Compiled variants, on/off switch, targeting rules, scheduled changes and default of a flag.
#[derive(Debug)]
pub(crate) struct CompiledLayers {
    pub(crate) variants: Box<[CompiledVariant]>,
    /// Index into `variants`.
    pub(crate) off_variant: usize,
    /// Enabled rules, in the order of the definition.
    pub(crate) rules: Box<[CompiledRule]>,
    pub(crate) default: CompiledServe,
    /// Scheduled changes of the default that are later than its last manual change, ordered by time.
    pub(crate) serve_steps: Box<[ServeStep]>,
    pub(crate) enabled: bool,
    /// Scheduled changes of the on/off switch that are later than its last manual change, ordered by time.
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
        /// For each variant with a weight above 0, in the order of the definition: the exclusive
        /// upper bound of its buckets, and its index.
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

    fn reads_key(&self) -> bool {
        self.is_split() && !self.reads_attributes()
    }
}

impl CompiledFlag {
    /// Compiles a flag and all of its scheduled changes, which may be in any order.
    pub fn compile(flag: &Flag, schedule: &[ScheduledChange]) -> Self {
        Self {
            name: flag.name.clone(),
            flag_type: Some(flag.flag_type),
            floating_point: flag.is_floating_point(),
            client_visible: flag.client_visible,
            archived: flag.archived_at.is_some(),
            layers: CompiledLayers::compile(flag, schedule),
        }
    }

    /// Returns a flag whose definition cannot be read. It serves only active overrides of its type.
    /// `reason` becomes the detail of its [`CompileError`].
    pub(crate) fn unreadable(flag: &UnreadableFlag, reason: &str) -> Self {
        Self {
            name: flag.name.clone(),
            flag_type: flag.flag_type,
            floating_point: false,
            client_visible: flag.client_visible,
            archived: flag.archived_at.is_some(),
            layers: Err(CompileError { pointer: String::new(), detail: reason.to_owned() }),
        }
    }

    /// Name of the flag.
    pub const fn name(&self) -> &FlagName {
        &self.name
    }

    /// Type of all values of the flag. [`FlagType::Json`] if the type cannot be read; such a flag
    /// has no evaluation result.
    pub fn flag_type(&self) -> FlagType {
        self.flag_type.unwrap_or(FlagType::Json)
    }

    /// Whether this is a number flag with at least one variant value that is written with a fraction or an exponent.
    ///
    /// Clients with separate integer and floating-point types should treat all values of such a flag as floating point.
    pub const fn is_floating_point(&self) -> bool {
        self.floating_point
    }

    /// Whether users may read their own value of the flag.
    pub const fn client_visible(&self) -> bool {
        self.client_visible
    }

    /// Whether clients can see the flag: it is client-visible and not archived.
    pub const fn is_visible_to_clients(&self) -> bool {
        self.client_visible && !self.archived
    }

    /// Whether the flag is archived. An archived flag has no evaluation result.
    pub const fn is_archived(&self) -> bool {
        self.archived
    }

    /// Instants, past and future, at which a scheduled change may change the result.
    pub fn schedule_instants(&self) -> impl Iterator<Item = Instant> {
        self.layers().into_iter().flat_map(|layers| {
            let serve_instants = layers.serve_steps.iter().map(|step| step.at);
            serve_instants.chain(layers.switch_steps.iter().map(|step| step.at))
        })
    }

    /// Reason why the flag did not compile; `None` if it compiled.
    pub fn compile_error(&self) -> Option<&CompileError> {
        self.layers.as_ref().err()
    }

    /// Whether the result can depend on attributes of the context other than the targeting key.
    pub fn reads_attributes(&self) -> bool {
        self.layers().is_some_and(CompiledLayers::reads_attributes)
    }

    /// Whether the result can depend on the key of the context or on the id of its user.
    pub fn reads_key(&self) -> bool {
        self.layers().is_some_and(CompiledLayers::reads_key)
    }

    pub(crate) fn layers(&self) -> Option<&CompiledLayers> {
        self.layers.as_ref().ok()
    }

    /// Returns whether an override of this flag applies at `now`, or why it does not.
    pub(crate) fn override_outcome(&self, user_override: OverrideView<'_>, now: Instant) -> OverrideOutcome {
        match user_override.status(now) {
            OverrideStatus::Expired => OverrideOutcome::Expired,
            OverrideStatus::Disabled => OverrideOutcome::Disabled,
            OverrideStatus::Active if self.accepts(user_override.value) => OverrideOutcome::Applied,
            OverrideStatus::Active => OverrideOutcome::TypeMismatch,
        }
    }

    fn accepts(&self, value: &PreparedValue) -> bool {
        self.flag_type.is_some_and(|flag_type| flag_type.accepts(value.value()))
    }

    /// Returns the first variant with this value.
    pub(crate) fn variant_with_value(&self, value: &PreparedValue) -> Option<&CompiledVariant> {
        let variants = &self.layers()?.variants;
        variants.iter().find(|variant| same_value(variant.value.value(), value.value()))
    }
}

impl CompiledLayers {
    fn compile(flag: &Flag, schedule: &[ScheduledChange]) -> Result<Self, CompileError> {
        let variants = VariantIds(&flag.variants.iter().map(|variant| variant.id.as_str()).collect::<Vec<_>>());
        let mut changes: Vec<_> = schedule.iter().filter(|change| change.cancelled_at.is_none()).collect();
        changes.sort_by_key(|change| change.scheduled_at);
        let after_manual_default = changes.iter().filter(|change| change.scheduled_at > flag.default_set_at);
        let mut serve_changes =
            after_manual_default.filter_map(|change| Some((change, change.serve.as_ref()?))).peekable();
        let mut serve_steps = Vec::new();
        while let Some((change, serve)) = serve_changes.next() {
            match variants.compile_serve(serve, "/scheduled_changes") {
                Ok(serve) => serve_steps.push(ServeStep { at: change.scheduled_at, change_id: change.id, serve }),
                // The variant no longer exists. The server permits its removal only if later changes supersede every
                // change that serves it, so skipping this change does not affect the result.
                Err(_) if serve_changes.peek().is_some() => {}
                Err(error) => return Err(error),
            }
        }
        let switch_steps =
            changes.iter().filter(|change| change.scheduled_at > flag.enabled_set_at).filter_map(|change| {
                Some(SwitchStep { at: change.scheduled_at, change_id: change.id, enabled: change.enabled? })
            });
        let enabled_rules = flag.targeting_rules.iter().filter(|rule| rule.enabled);
        Ok(Self {
            variants: flag.variants.iter().map(CompiledVariant::new).collect(),
            off_variant: variants.index_of(&flag.off_variant, "/off_variant")?,
            rules: enabled_rules.map(|rule| CompiledRule::compile(rule, &variants)).collect::<Result<_, _>>()?,
            default: variants.compile_serve(&flag.default, "/default")?,
            serve_steps: serve_steps.into(),
            enabled: flag.enabled,
            switch_steps: switch_steps.collect(),
            salt: flag.salt.as_str().into(),
        })
    }

    /// Returns whether the flag is on at `now`, and the next instant at which the switch changes.
    pub(crate) fn switch_at(&self, now: Instant) -> (bool, Option<Instant>) {
        let (current, later) = self.switch_steps_at(now);
        let is_on = current.map_or(self.enabled, |step| step.enabled);
        (is_on, later.iter().find(|step| step.enabled != is_on).map(|step| step.at))
    }

    /// Returns the scheduled change that last set the on/off switch at or before `now`, and all
    /// later ones.
    pub(crate) fn switch_steps_at(&self, now: Instant) -> (Option<&SwitchStep>, &[SwitchStep]) {
        let due = self.switch_steps.partition_point(|step| step.at <= now);
        (due.checked_sub(1).map(|last| &self.switch_steps[last]), &self.switch_steps[due..])
    }

    /// Returns the scheduled change that last set the default at or before `now`, and the instant
    /// of the next one.
    pub(crate) fn serve_at(&self, now: Instant) -> (Option<&ServeStep>, Option<Instant>) {
        let due = self.serve_steps.partition_point(|step| step.at <= now);
        let current = due.checked_sub(1).map(|last| &self.serve_steps[last]);
        (current, self.serve_steps.get(due).map(|step| step.at))
    }

    fn reads_attributes(&self) -> bool {
        self.rules.iter().any(CompiledRule::reads_attributes) || self.serves().any(CompiledServe::reads_attributes)
    }

    fn reads_key(&self) -> bool {
        self.rules.iter().any(CompiledRule::reads_key) || self.serves().any(CompiledServe::reads_key)
    }

    fn serves(&self) -> impl Iterator<Item = &CompiledServe> {
        let scheduled = self.serve_steps.iter().map(|step| &step.serve);
        self.rules.iter().map(|rule| &rule.serve).chain(scheduled).chain([&self.default])
    }

    /// Returns the variant that `serve` selects for `context`. Computes at most one hash.
    pub(crate) fn select_variant(&self, serve: &CompiledServe, context: &EvaluationContext) -> &CompiledVariant {
        let index = match serve {
            CompiledServe::Variant(index) => *index,
            CompiledServe::Split { bucket_by, ranges } => {
                let bucket = self.bucket_of(bucket_by.as_deref(), context);
                let range = bucket.and_then(|bucket| ranges.iter().find(|(upper, _)| bucket < *upper));
                // A context without a key gets the off variant. If the attribute `bucket_by` is
                // missing or cannot be hashed, the first range applies.
                let first = bucket_by.as_ref().and_then(|_| ranges.first());
                range.or(first).map_or(self.off_variant, |(_, index)| *index)
            }
        };
        &self.variants[index]
    }

    /// Upper bound on the work of [`select_variant`](Self::select_variant), in units of the
    /// [`EvaluationBudget`](crate::EvaluationBudget).
    pub(crate) fn selection_cost(&self, serve: &CompiledServe, context: &EvaluationContext) -> u64 {
        let CompiledServe::Split { bucket_by, .. } = serve else { return 0 };
        let text = match bucket_by {
            None => context.evaluation_key(),
            Some(name) => context.attribute(name).and_then(Attribute::text),
        };
        let bytes = self.salt.len() + text.map_or(0, str::len);
        100 + bytes as u64 / 2
    }

    /// Returns the bucket of `context`. `None` if the context has no key, or if the attribute
    /// `bucket_by` is missing or is neither text nor an integer.
    pub(crate) fn bucket_of(&self, bucket_by: Option<&str>, context: &EvaluationContext) -> Option<u32> {
        let Some(name) = bucket_by else { return context.evaluation_key().map(|key| bucket(&self.salt, key)) };
        let attribute = context.attribute(name)?;
        if let Some(text) = attribute.text() {
            return Some(bucket(&self.salt, text));
        }
        self.bucket_of_integer(attribute)
    }

    fn bucket_of_integer(&self, attribute: Attribute<'_>) -> Option<u32> {
        use std::fmt::Write as _;
        let mut digits = StackString::default();
        write!(digits, "{}", attribute.integer()?).ok()?;
        Some(bucket(&self.salt, digits.as_str()))
    }
}

/// A string buffer that holds the decimal form of any 64-bit integer without heap allocation.
#[derive(Default)]
struct StackString {
    bytes: smallvec::SmallVec<[u8; 24]>,
}

impl StackString {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

impl std::fmt::Write for StackString {
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
    fn compile(rule: &TargetingRule, variants: &VariantIds<'_>) -> Result<Self, CompileError> {
        let pointer = format!("/targeting_rules/{}", rule.id);
        let compile = |condition| {
            CompiledCondition::compile(condition).map_err(|violations| {
                let detail = violations.first().map_or_else(String::new, |violation| violation.detail.clone());
                CompileError { pointer: pointer.clone(), detail }
            })
        };
        Ok(Self {
            id: rule.id.as_str().into(),
            conditions: rule.conditions.iter().map(compile).collect::<Result<_, _>>()?,
            serve: variants.compile_serve(&rule.serve, &pointer)?,
        })
    }

    /// Returns whether all conditions hold.
    pub(crate) fn matches(
        &self,
        context: &EvaluationContext,
        budget: &mut FlagBudget<'_>,
    ) -> Result<bool, BudgetExhausted> {
        Ok(self.first_failure(context, budget)?.is_none())
    }

    /// Returns the first condition that does not hold: its index and the reason. `None` if all
    /// conditions hold.
    pub(crate) fn first_failure(
        &self,
        context: &EvaluationContext,
        budget: &mut FlagBudget<'_>,
    ) -> Result<Option<(usize, ConditionFailure)>, BudgetExhausted> {
        for (index, condition) in self.conditions.iter().enumerate() {
            if let Some(failure) = condition.failure(context, budget)? {
                return Ok(Some((index, failure)));
            }
        }
        Ok(None)
    }

    fn reads_attributes(&self) -> bool {
        self.conditions.iter().any(CompiledCondition::reads_attributes)
    }

    fn reads_key(&self) -> bool {
        self.conditions.iter().any(|condition| !condition.reads_attributes())
    }
}

/// Ids of a flag's variants, in the order of the definition.
struct VariantIds<'f>(&'f [&'f str]);

impl VariantIds<'_> {
    fn index_of(&self, id: &str, pointer: &str) -> Result<usize, CompileError> {
        self.0.iter().position(|variant| *variant == id).ok_or_else(|| CompileError {
            pointer: pointer.to_owned(),
            detail: format!("the flag has no variant {id:?}"),
        })
    }

    fn compile_serve(&self, serve: &Serve, pointer: &str) -> Result<CompiledServe, CompileError> {
        match serve {
            Serve::Variant(id) => self.index_of(id, pointer).map(CompiledServe::Variant),
            Serve::Split { weights, bucket_by } => self.compile_split(weights, bucket_by.as_deref(), pointer),
        }
    }

    fn compile_split(
        &self,
        weights: &BTreeMap<String, Weight>,
        bucket_by: Option<&str>,
        pointer: &str,
    ) -> Result<CompiledServe, CompileError> {
        for id in weights.keys() {
            self.index_of(id, pointer)?;
        }
        let weight = |id: &str| weights.get(id).map_or(0, |weight| weight.thousandths());
        let mut upper = 0_u32;
        let mut ranges = Vec::new();
        for (index, id) in self.0.iter().enumerate().filter(|(_, id)| weight(id) > 0) {
            upper = upper.saturating_add(weight(id));
            ranges.push((upper, index));
        }
        if ranges.is_empty() {
            return Err(CompileError { pointer: pointer.to_owned(), detail: "all weights are 0".to_owned() });
        }
        Ok(CompiledServe::Split { bucket_by: bucket_by.map(Into::into), ranges: ranges.into() })
    }
}

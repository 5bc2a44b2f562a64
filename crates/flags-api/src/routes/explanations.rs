//! What one user gets of the flags, and why: now, or at an instant to come.

use std::collections::BTreeMap;

use actix_web::web::{self, Data};
use flags_domain::{self as domain, Instant, LayerOutcome, Violation, WhyNot, explain};
use flags_service::{
    ServiceError, Thing,
    evaluation::{Evaluated, evaluate},
    replica::{HeldOverride, KnownUser, OverrideRef},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    Routes,
    answer::{self, Answer},
    me::Source,
};
use crate::{
    app::App,
    auth::{ExplainFlags, Require},
    extract::{PathFlag, Query, UserId},
    problem::Problem,
    problem::ProblemResponse,
    wire::{Finding, FlagType, Operator, OverrideStatus},
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_flags_of_user>(web::to(flags_of_user));
    routes.add::<__path_explanation>(web::to(explanation));
}

/// As of when.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AsOf {
    /// Now, or an instant to come: as things stand, with what time alone will change by then. The past is in the audit log.
    #[param(value_type = Option<String>, format = DateTime)]
    at: Option<Instant>,
}

impl AsOf {
    fn read(&self, now: Instant) -> Result<Instant, Problem> {
        match self.at {
            Some(at) if at < now => Err(Violation::new("/at", "in_the_past", "must not lie in the past").into()),
            at => Ok(at.unwrap_or(now)),
        }
    }
}

/// What a user gets of all flags, those that clients do not see among them.
#[derive(Serialize, ToSchema)]
pub(crate) struct FlagsOfUser<'v> {
    user_id: Uuid,
    /// `<epoch>:<number>`: the revision of the log that was evaluated.
    revision: String,
    #[schema(value_type = String, format = DateTime)]
    evaluated_at: Instant,
    /// The next instant at which time alone may change an answer.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    valid_until: Option<Instant>,
    /// Whether the server has not been able to read its database for 5 s.
    stale: bool,
    flags: BTreeMap<&'v str, FlagOfUser<'v>>,
}

/// What a user gets of a flag, and where it comes from.
#[derive(Serialize, ToSchema)]
pub(crate) struct FlagOfUser<'v> {
    #[serde(flatten)]
    given: Resolved<'v>,
    flag_type: FlagType,
    /// Whether users themselves get it.
    client_visible: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    r#override: Option<DecidingOverride<'v>>,
    /// Beside an override that expires: what comes then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    then: Option<Resolved<'v>>,
}

/// What is given, and by which layer.
#[derive(Serialize, ToSchema)]
pub(crate) struct Resolved<'v> {
    #[schema(value_type = Value)]
    value: &'v Value,
    /// The variant with this value; `null` if an override gives a value that no variant has.
    #[schema(required)]
    variant: Option<&'v str>,
    source: Source,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rule_id: Option<&'v str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    scheduled_change_id: Option<Uuid>,
}

impl<'v> Resolved<'v> {
    fn show(resolution: &domain::Resolution<'v>) -> Self {
        let (rule_id, scheduled_change_id) = match resolution.source {
            domain::Source::TargetingRule { rule_id } => (Some(rule_id), None),
            domain::Source::ScheduledChange { id } => (None, Some(id)),
            _ => (None, None),
        };
        Self {
            value: resolution.value.value(),
            variant: resolution.variant.map(domain::CompiledVariant::id),
            source: resolution.source.into(),
            rule_id,
            scheduled_change_id,
        }
    }
}

/// The user's override, with what is for admins.
#[derive(Serialize, ToSchema)]
pub(crate) struct DecidingOverride<'v> {
    id: Uuid,
    #[schema(value_type = Value)]
    override_value: &'v Value,
    enabled: bool,
    status: OverrideStatus,
    #[schema(required)]
    reason: Option<&'v str>,
    /// Who made it: `user:<id>`, `token:<id>` or `system:<name>`.
    created_by: &'v str,
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
}

impl<'v> DecidingOverride<'v> {
    fn show(found: OverrideRef<'v>, at: Instant) -> Self {
        Self {
            id: found.id,
            override_value: found.value.value(),
            enabled: found.enabled,
            status: found.status(at).into(),
            reason: found.reason,
            created_by: found.created_by,
            created_at: found.created_at,
            updated_at: found.updated_at,
            expires_at: found.expires_at,
        }
    }
}

impl<'v> FlagOfUser<'v> {
    fn show(evaluated: &Evaluated<'v>, at: Instant) -> Self {
        Self {
            given: Resolved::show(&evaluated.resolution),
            flag_type: evaluated.flag.flag_type().into(),
            client_visible: evaluated.flag.client_visible(),
            r#override: evaluated.user_override.map(|found| DecidingOverride::show(found, at)),
            then: evaluated.then.as_ref().map(Resolved::show),
        }
    }
}

async fn known_user(app: &App, user_id: Uuid) -> Result<Arc<KnownUser>, Problem> {
    let user = app.evaluation.user(user_id).await?;
    Ok(user.ok_or(ServiceError::NotFound(Thing::User))?)
}

/// What a user gets of all flags
///
/// Those that clients do not see among them, with the ids of rules and scheduled changes, and what is known of overrides.
#[utoipa::path(
    get, path = "/api/admin/users/{user_id}/flags", tag = "explanations", operation_id = "get_flags_of_user",
    params(("user_id" = Uuid, Path), AsOf),
    responses((status = 200, body = FlagsOfUser), (status = "default", response = ProblemResponse)),
)]
async fn flags_of_user(_: Require<ExplainFlags>, app: Data<App>, user_id: UserId, Query(as_of): Query<AsOf>) -> Answer {
    let at = as_of.read(app.evaluation.now())?;
    let user = known_user(&app, user_id.0).await?;
    let stale = app.evaluation.replica().is_stale();
    // Copied, so that nobody waits for what is written here.
    let (revision, held) = {
        let view = app.evaluation.replica().read();
        (view.revision(), view.held_flags(user.id))
    };
    let mut valid_until: Option<Instant> = None;
    let mut flags = BTreeMap::new();
    for (state, found) in &held {
        let Some(evaluated) = evaluate(state.compiled(), &user, found.as_ref().map(HeldOverride::get), at) else {
            continue;
        };
        valid_until = [valid_until, evaluated.resolution.valid_until].into_iter().flatten().min();
        flags.insert(evaluated.flag.name().as_str(), FlagOfUser::show(&evaluated, at));
    }
    let revision = revision.to_string();
    answer::json(&FlagsOfUser { user_id: user.id, revision, evaluated_at: at, valid_until, stale, flags })
}

/// Why a user gets what they get of a flag.
#[derive(Serialize, ToSchema)]
pub(crate) struct Explanation<'v> {
    user_id: Uuid,
    flag_name: &'v str,
    /// `<epoch>:<number>`: the revision of the log that was evaluated.
    revision: String,
    #[schema(value_type = String, format = DateTime)]
    evaluated_at: Instant,
    /// Whether the server has not been able to read its database for 5 s.
    stale: bool,
    /// What they get; `null` of an archived flag, or of one that could not be compiled.
    #[schema(required)]
    resolution: Option<Resolution<'v>>,
    /// The user's override of this flag, whatever became of it.
    #[schema(required)]
    r#override: Option<DecidingOverride<'v>>,
    /// Highest first; one entry for each rule.
    layers: Vec<Layer<'v>>,
    findings: Vec<FindingReport>,
    /// The first instant at which value or source differ by time alone.
    #[schema(required)]
    next_change: Option<NextChange<'v>>,
}

/// What they get.
#[derive(Serialize, ToSchema)]
pub(crate) struct Resolution<'v> {
    #[serde(flatten)]
    given: Resolved<'v>,
    /// The next instant at which time alone may change it.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    valid_until: Option<Instant>,
}

/// What comes next.
#[derive(Serialize, ToSchema)]
pub(crate) struct NextChange<'v> {
    #[schema(value_type = String, format = DateTime)]
    at: Instant,
    /// Left out if the user gets nothing from then on: the definition could not be compiled.
    #[serde(flatten)]
    given: Option<Resolved<'v>>,
}

/// What an admin may want to know of the override.
#[derive(Serialize, ToSchema)]
pub(crate) struct FindingReport {
    code: Finding,
    /// A sentence for people.
    detail: &'static str,
}

/// One layer, and what became of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Layer<'v> {
    layer: LayerName,
    outcome: Outcome,
    /// Of a targeting rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rule_id: Option<&'v str>,
    /// Of `scheduled_change`, the one that is due; of `disabled`, the one that set the switch, on or off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    scheduled_change_id: Option<Uuid>,
    /// Whether it has something to give, reached or not.
    would_match: bool,
    /// What it gives, or would give if no higher layer decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'v Value>,
    /// The variant with this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    variant: Option<&'v str>,
    /// How a split chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    split: Option<Split<'v>>,
    /// Why it has nothing to give.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    why_not: Option<WhyNotMatched<'v>>,
}

/// How a split chose.
#[derive(Serialize, ToSchema)]
pub(crate) struct Split<'v> {
    /// The attribute that is hashed.
    bucket_by: &'v str,
    /// 0 to 99,999; `null` if the user has nothing to hash there: then the first variant with a weight above 0 is chosen.
    #[schema(required, maximum = 99999)]
    bucket: Option<u32>,
}

/// Why a layer has nothing to give.
#[derive(Serialize, ToSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub(crate) enum WhyNotMatched<'v> {
    /// The user has no override of this flag.
    NoOverride,
    /// Theirs is switched off.
    OverrideDisabled,
    /// Theirs has expired.
    OverrideExpired,
    /// The value of theirs is not of the flag's type.
    OverrideTypeMismatch,
    /// The flag is on.
    FlagEnabled,
    /// The rule is switched off.
    RuleDisabled,
    /// The first of the rule's conditions that does not hold.
    Condition {
        /// Its place in the rule, from 0.
        condition: usize,
        attribute: &'v str,
        operator: Operator,
        /// What was seen of the user, cut after 200 characters; `null` if it is missing.
        #[schema(value_type = Value)]
        seen: Value,
        failure: Failure,
    },
    /// No scheduled change of the default is due, or the default was set by hand since.
    NothingDue,
    /// The definition could not be compiled.
    Invalid {
        /// Where.
        pointer: &'v str,
        /// Why.
        detail: &'v str,
    },
}

/// Why a condition does not hold.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Failure {
    /// The user has no such attribute; negated or not, only `exists` can hold then.
    Missing,
    /// What was seen is of a type that the operator does not compare; negated or not, the condition fails.
    TypeMismatch,
    /// None of the values fits.
    NoMatch,
    /// One of the values fits, and the condition is negated.
    Excluded,
}

/// A layer, highest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LayerName {
    /// In place of all: the flag is archived.
    Archived,
    Override,
    Disabled,
    TargetingRule,
    ScheduledChange,
    Default,
    /// In place of all below the override: the definition could not be compiled.
    Invalid,
}

/// What became of a layer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It decided.
    Matched,
    /// It had nothing to give.
    NotMatched,
    /// A higher one had decided.
    NotReached,
}

impl<'v> Layer<'v> {
    fn show(report: domain::LayerReport<'v>) -> Self {
        let (layer, rule_id, scheduled_change_id) = match report.layer {
            domain::Layer::Archived => (LayerName::Archived, None, None),
            domain::Layer::Override => (LayerName::Override, None, None),
            domain::Layer::Disabled { set_by } => (LayerName::Disabled, None, set_by),
            domain::Layer::TargetingRule { rule_id } => (LayerName::TargetingRule, Some(rule_id), None),
            domain::Layer::ScheduledChange { id } => (LayerName::ScheduledChange, None, id),
            domain::Layer::Default => (LayerName::Default, None, None),
            domain::Layer::Invalid => (LayerName::Invalid, None, None),
        };
        Self {
            layer,
            outcome: match report.outcome {
                LayerOutcome::Matched => Outcome::Matched,
                LayerOutcome::NotMatched => Outcome::NotMatched,
                LayerOutcome::NotReached => Outcome::NotReached,
            },
            rule_id,
            scheduled_change_id,
            would_match: report.gives.is_some(),
            value: report.gives.map(|given| given.value.value()),
            variant: report.gives.and_then(|given| given.variant).map(domain::CompiledVariant::id),
            split: report
                .gives
                .and_then(|given| given.split)
                .map(|split| Split { bucket_by: split.bucket_by, bucket: split.bucket }),
            why_not: report.why_not.map(WhyNotMatched::show),
        }
    }
}

impl<'v> WhyNotMatched<'v> {
    fn show(why: WhyNot<'v>) -> Self {
        match why {
            WhyNot::NoOverride => Self::NoOverride,
            WhyNot::OverrideDisabled => Self::OverrideDisabled,
            WhyNot::OverrideExpired => Self::OverrideExpired,
            WhyNot::OverrideTypeMismatch => Self::OverrideTypeMismatch,
            WhyNot::FlagEnabled => Self::FlagEnabled,
            WhyNot::RuleDisabled => Self::RuleDisabled,
            WhyNot::Condition { index, attribute, operator, seen, failure } => Self::Condition {
                condition: index,
                attribute,
                operator: operator.into(),
                seen: seen.unwrap_or_default(),
                failure: match failure {
                    domain::ConditionFailure::Missing => Failure::Missing,
                    domain::ConditionFailure::TypeMismatch => Failure::TypeMismatch,
                    domain::ConditionFailure::NoMatch => Failure::NoMatch,
                    domain::ConditionFailure::Excluded => Failure::Excluded,
                },
            },
            WhyNot::NothingDue => Self::NothingDue,
            WhyNot::Invalid { pointer, detail } => Self::Invalid { pointer, detail },
        }
    }
}

impl FindingReport {
    fn show(code: domain::FindingCode) -> Self {
        use domain::FindingCode as Code;
        let detail = match code {
            Code::OverrideRedundant => "the user would get the same without the override, up to its end",
            Code::OverrideShadowsRule => "a targeting rule would decide without the override",
            Code::OverrideShadowsSchedule => {
                "a scheduled change would decide without the override, or change what the user gets before it ends"
            }
            Code::OverrideOnDisabledFlag => "the flag is off, and the user gets the override all the same",
            Code::OverrideExpired => "the override has expired and does nothing",
            Code::OverrideDisabled => "the override is switched off and does nothing",
            Code::OverrideTypeMismatch => "the override's value is not of the flag's type, so that it does nothing",
        };
        Self { code: code.into(), detail }
    }
}

/// Why a user gets what they get of a flag
///
/// Every layer with its outcome and what it would give, what an admin may want to know of the override, and what comes next.
#[utoipa::path(
    get, path = "/api/admin/users/{user_id}/flags/{flag_name}/explanation", tag = "explanations",
    operation_id = "explain_flag_of_user", params(("user_id" = Uuid, Path), ("flag_name" = String, Path), AsOf),
    responses((status = 200, body = Explanation), (status = "default", response = ProblemResponse)),
)]
async fn explanation(
    _: Require<ExplainFlags>,
    app: Data<App>,
    (user_id, flag): (UserId, PathFlag),
    Query(as_of): Query<AsOf>,
) -> Answer {
    let at = as_of.read(app.evaluation.now())?;
    let user = known_user(&app, user_id.0).await?;
    let stale = app.evaluation.replica().is_stale();
    // Copied, so that nobody waits for what is written here.
    let (revision, state, found) = {
        let view = app.evaluation.replica().read();
        let found = view.overrides_of(user.id).find(|o| *o.flag_name == flag.0);
        (view.revision(), view.held_flag(&flag.0), found.map(HeldOverride::from))
    };
    let state = state.ok_or(ServiceError::NotFound(Thing::Flag))?;
    let found = found.as_ref().map(HeldOverride::get);
    let explained = explain(&state, &user.context, found.map(|o| o.view()), at);
    answer::json(&Explanation {
        user_id: user.id,
        flag_name: state.flag().name.as_str(),
        revision: revision.to_string(),
        evaluated_at: at,
        stale,
        resolution: explained
            .resolution
            .map(|resolution| Resolution { given: Resolved::show(&resolution), valid_until: resolution.valid_until }),
        r#override: found.map(|o| DecidingOverride::show(o, at)),
        layers: explained.layers.into_iter().map(Layer::show).collect(),
        findings: explained.findings.into_iter().map(FindingReport::show).collect(),
        next_change: explained
            .next_change
            .map(|next| NextChange { at: next.at, given: next.resolution.as_ref().map(Resolved::show) }),
    })
}

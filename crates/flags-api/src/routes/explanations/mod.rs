//! Evaluation results of one user and their explanations, now or at a future time.

mod report;
mod user_flags;

use std::{collections::BTreeMap, sync::Arc};

use actix_web::web::{self, Data};
use flags_domain::{Instant, Violation, explain};
use flags_service::{ResourceKind, ServiceError, replica::CachedUser};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use self::{
    report::{ExplainedResult, ExplanationResponse, FindingReport, LayerExplanation, NextResultChange},
    user_flags::{DetailedResult, OverrideDetail, UserFlagResult, UserFlagsResponse},
};
use super::reply::{self, HandlerResult};
use crate::{
    auth::{ExplainFlags, Require},
    extract::{FlagNameParam, Query, UserIdParam},
    problem::{Problem, ProblemResponse},
    route_facts::RouteFacts,
    route_registry::RouteRegistry,
    state::App,
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_get_user_flags>(web::to(get_user_flags), RouteFacts::api());
    routes.add::<__path_explain_user_flag>(web::to(explain_user_flag), RouteFacts::api());
}

/// Time of evaluation.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EvaluationTimeQuery {
    /// Time to evaluate at: now (default) or a future time. Future results take expiries and pending scheduled changes
    /// into account. For past changes, see the audit log.
    #[param(value_type = Option<String>, format = DateTime)]
    at: Option<Instant>,
}

impl EvaluationTimeQuery {
    /// Returns the requested time, or `now` if none was requested.
    fn resolve(&self, now: Instant) -> Result<Instant, Problem> {
        match self.at {
            Some(at) if at < now => Err(Violation::new("/at", "in_the_past", "must not be in the past").into()),
            at => Ok(at.unwrap_or(now)),
        }
    }
}

async fn find_user(app: &App, user_id: Uuid) -> Result<Arc<CachedUser>, Problem> {
    let user = app.evaluation.user(user_id).await?;
    Ok(user.ok_or(ServiceError::NotFound(ResourceKind::User))?)
}

/// Get a user's flag values
///
/// Evaluates all flags for the user, including flags that are not visible to clients. The results include the ids of
/// rules and scheduled changes, and override details.
#[utoipa::path(
    get, path = "/api/admin/users/{user_id}/flags", tag = "explanations", operation_id = "get_flags_of_user",
    params(("user_id" = Uuid, Path, description = "Id of the user"), EvaluationTimeQuery),
    responses((status = 200, body = UserFlagsResponse), (status = "default", response = ProblemResponse)),
)]
async fn get_user_flags(
    _: Require<ExplainFlags>,
    app: Data<App>,
    user_id: UserIdParam,
    Query(query): Query<EvaluationTimeQuery>,
) -> HandlerResult {
    let at = query.resolve(app.evaluation.now())?;
    let user = find_user(&app, user_id.0).await?;
    let stale = app.evaluation.replica().is_stale();
    let snapshot = app.evaluation.replica().snapshot(Some(user.id));
    let mut valid_until: Option<Instant> = None;
    let mut flags = BTreeMap::new();
    for evaluated in snapshot.evaluate_all(&user.context, at, |_| true) {
        valid_until = [valid_until, evaluated.resolution.valid_until].into_iter().flatten().min();
        flags.insert(evaluated.flag.name().as_str(), UserFlagResult::from_evaluated(&evaluated, at));
    }
    let revision = snapshot.revision().to_string();
    reply::json(&UserFlagsResponse { user_id: user.id, revision, evaluated_at: at, valid_until, stale, flags })
}

/// Explain a flag's value for a user
///
/// Returns the evaluation result, the outcome of every layer, and findings about the user's override. Also returns the
/// next change of the result that happens without a new revision.
#[utoipa::path(
    get, path = "/api/admin/users/{user_id}/flags/{flag_name}/explanation", tag = "explanations",
    operation_id = "explain_flag_of_user",
    params(
        ("user_id" = Uuid, Path, description = "Id of the user"),
        ("flag_name" = String, Path, description = "Name of the flag"),
        EvaluationTimeQuery,
    ),
    responses((status = 200, body = ExplanationResponse), (status = "default", response = ProblemResponse)),
)]
async fn explain_user_flag(
    _: Require<ExplainFlags>,
    app: Data<App>,
    (user_id, flag): (UserIdParam, FlagNameParam),
    Query(query): Query<EvaluationTimeQuery>,
) -> HandlerResult {
    let at = query.resolve(app.evaluation.now())?;
    let user = find_user(&app, user_id.0).await?;
    let stale = app.evaluation.replica().is_stale();
    let snapshot = app.evaluation.replica().snapshot(Some(user.id));
    let state = snapshot.flag(&flag.0).ok_or(ServiceError::NotFound(ResourceKind::Flag))?;
    let user_override = snapshot.override_of(&flag.0);
    let explanation = explain(state, &user.context, user_override.map(|o| o.view()), at);
    reply::json(&ExplanationResponse {
        user_id: user.id,
        flag_name: state.name().as_str(),
        revision: snapshot.revision().to_string(),
        evaluated_at: at,
        stale,
        resolution: explanation.resolution.map(|resolution| ExplainedResult {
            result: DetailedResult::from_resolution(&resolution),
            valid_until: resolution.valid_until,
        }),
        r#override: user_override.map(|o| OverrideDetail::from_override(o, at)),
        layers: explanation.layers.into_iter().map(LayerExplanation::from_report).collect(),
        findings: explanation.findings.into_iter().map(FindingReport::from_code).collect(),
        next_change: explanation.next_change.map(|next| NextResultChange {
            at: next.at,
            result: next.resolution.as_ref().map(DetailedResult::from_resolution),
        }),
    })
}

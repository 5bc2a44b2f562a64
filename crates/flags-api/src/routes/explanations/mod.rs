//! What one user gets of the flags, and why: now, or at an instant to come.

mod report;
mod user_flags;

use std::{collections::BTreeMap, sync::Arc};

use actix_web::web::{self, Data};
use flags_domain::{Instant, Violation, explain};
use flags_service::{
    ResourceKind, ServiceError,
    evaluation::evaluate,
    replica::{CachedUser, HeldOverride},
};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use self::{
    report::{Explanation, FindingReport, Layer, NextChange, Resolution},
    user_flags::{FlagOfUser, FlagsOfUser, OverrideDetail, Resolved},
};
use super::{
    Routes,
    reply::{self, HandlerResult},
};
use crate::{
    app::App,
    auth::{ExplainFlags, Require},
    extract::{PathFlag, Query, UserId},
    problem::{Problem, ProblemResponse},
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

async fn known_user(app: &App, user_id: Uuid) -> Result<Arc<CachedUser>, Problem> {
    let user = app.evaluation.user(user_id).await?;
    Ok(user.ok_or(ServiceError::NotFound(ResourceKind::User))?)
}

/// What a user gets of all flags
///
/// Those that clients do not see among them, with the ids of rules and scheduled changes, and what is known of overrides.
#[utoipa::path(
    get, path = "/api/admin/users/{user_id}/flags", tag = "explanations", operation_id = "get_flags_of_user",
    params(("user_id" = Uuid, Path), AsOf),
    responses((status = 200, body = FlagsOfUser), (status = "default", response = ProblemResponse)),
)]
async fn flags_of_user(
    _: Require<ExplainFlags>,
    app: Data<App>,
    user_id: UserId,
    Query(as_of): Query<AsOf>,
) -> HandlerResult {
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
        let Some(evaluated) = evaluate(state.compiled(), &*user, found.as_ref().map(HeldOverride::get), at) else {
            continue;
        };
        valid_until = [valid_until, evaluated.resolution.valid_until].into_iter().flatten().min();
        flags.insert(evaluated.flag.name().as_str(), FlagOfUser::show(&evaluated, at));
    }
    let revision = revision.to_string();
    reply::json(&FlagsOfUser { user_id: user.id, revision, evaluated_at: at, valid_until, stale, flags })
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
) -> HandlerResult {
    let at = as_of.read(app.evaluation.now())?;
    let user = known_user(&app, user_id.0).await?;
    let stale = app.evaluation.replica().is_stale();
    // Copied, so that nobody waits for what is written here.
    let (revision, state, found) = {
        let view = app.evaluation.replica().read();
        let found = view.overrides_of(user.id).find(|o| *o.flag_name == flag.0);
        (view.revision(), view.held_flag(&flag.0), found.map(HeldOverride::from))
    };
    let state = state.ok_or(ServiceError::NotFound(ResourceKind::Flag))?;
    let found = found.as_ref().map(HeldOverride::get);
    let explained = explain(&state, &user.context, found.map(|o| o.view()), at);
    reply::json(&Explanation {
        user_id: user.id,
        flag_name: state.flag().name.as_str(),
        revision: revision.to_string(),
        evaluated_at: at,
        stale,
        resolution: explained
            .resolution
            .map(|resolution| Resolution { given: Resolved::show(&resolution), valid_until: resolution.valid_until }),
        r#override: found.map(|o| OverrideDetail::show(o, at)),
        layers: explained.layers.into_iter().map(Layer::show).collect(),
        findings: explained.findings.into_iter().map(FindingReport::show).collect(),
        next_change: explained
            .next_change
            .map(|next| NextChange { at: next.at, given: next.resolution.as_ref().map(Resolved::show) }),
    })
}

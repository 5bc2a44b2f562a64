//! What the caller gets: their flag values and their overrides. No database work, and no allocation per flag.

use std::fmt::Write as _;

use actix_web::{
    HttpResponse,
    web::{self, Data},
};
use flags_domain::{self as domain, Instant};
use flags_service::replica::OverrideRef;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Routes,
    conditional::{private, respond, tag},
    reply::HandlerResult,
};
use crate::{
    app::App,
    auth::{OwnFlags, Require},
    evaluation_json::{Tally, all_flags, write_end, write_head, write_result},
    extract::{IfNoneMatch, PathFlag},
    problem::{Problem, ProblemResponse},
    wire::{FlagType, OverrideStatus},
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_my_flags>(web::to(my_flags));
    routes.add::<__path_my_overrides>(web::to(my_overrides));
    routes.add::<__path_my_flag>(web::to(my_flag));
}

/// The caller's flag values.
#[derive(ToSchema)]
#[expect(dead_code, reason = "written by hand, for speed; stands in the OpenAPI document")]
pub(crate) struct MyFlags {
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
    flags: std::collections::BTreeMap<String, MyFlag>,
}

/// What the caller gets of a flag, and why.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub(crate) struct MyFlag {
    value: Value,
    flag_type: FlagType,
    /// The variant with this value; `null` if an override gives a value that no variant has.
    #[schema(required)]
    variant: Option<String>,
    source: Source,
    #[schema(required = false, nullable = false)]
    r#override: Option<MyFlagOverride>,
    /// Beside an override that expires: what comes then.
    #[schema(required = false, nullable = false)]
    then: Option<Then>,
}

/// The override that decided.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub(crate) struct MyFlagOverride {
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
    /// Only if the server was told to show reasons to users.
    #[schema(required = false)]
    reason: Option<String>,
}

/// What comes when an override has expired.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub(crate) struct Then {
    value: Value,
    #[schema(required)]
    variant: Option<String>,
    source: Source,
}

/// One flag of the caller.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
pub(crate) struct MyOneFlag {
    user_id: Uuid,
    name: String,
    /// `<epoch>:<number>`
    revision: String,
    #[schema(value_type = String, format = DateTime)]
    evaluated_at: Instant,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    valid_until: Option<Instant>,
    stale: bool,
    #[schema(inline)]
    #[serde(flatten)]
    flag: MyFlag,
}

/// The layer that decided.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    Override,
    TargetingRule,
    ScheduledChange,
    Default,
    Disabled,
}

impl From<domain::Source<'_>> for Source {
    fn from(source: domain::Source<'_>) -> Self {
        match source {
            domain::Source::Override => Self::Override,
            domain::Source::Disabled => Self::Disabled,
            domain::Source::TargetingRule { .. } => Self::TargetingRule,
            domain::Source::ScheduledChange { .. } => Self::ScheduledChange,
            domain::Source::Default => Self::Default,
        }
    }
}

/// My flag values
///
/// Those of flags that are visible to clients. Supports `If-None-Match`, and `Flags-Min-Revision` for answers no older
/// than a change one knows of.
#[utoipa::path(
    get, path = "/api/flags/me", tag = "my flags", operation_id = "get_my_flags",
    responses((status = 200, body = MyFlags), (status = 304, description = "The reader has it already"), (status = "default", response = ProblemResponse)),
)]
async fn my_flags(caller: Require<OwnFlags>, app: Data<App>, known: IfNoneMatch) -> HandlerResult {
    let now = app.evaluation.now();
    let user = caller.granted;
    let stale = app.evaluation.replica().is_stale();
    let view = app.evaluation.replica().read();
    let written = all_flags(&view, &user, now, stale, app.settings.show_reasons_to_users);
    let etag = tag(user.id.as_bytes(), view.revision().epoch, &written.body.as_bytes()[written.answer_at..]);
    drop(view);
    respond(&known, &etag, written.body)
}

/// One of my flag values
#[utoipa::path(
    get, path = "/api/flags/me/{flag_name}", tag = "my flags", operation_id = "get_my_flag",
    params(("flag_name" = String, Path)),
    responses((status = 200, body = MyOneFlag), (status = 304, description = "The reader has it already"), (status = "default", response = ProblemResponse)),
)]
async fn my_flag(caller: Require<OwnFlags>, app: Data<App>, flag: PathFlag, known: IfNoneMatch) -> HandlerResult {
    let now = app.evaluation.now();
    let user = caller.granted;
    let stale = app.evaluation.replica().is_stale();
    let view = app.evaluation.replica().read();
    let found = view.evaluate(&flag.0, &*user, now).filter(|evaluated| evaluated.flag.client_visible());
    let evaluated = found.ok_or_else(|| Problem::not_found("flag_not_found", "there is no such flag"))?;
    let mut body = String::with_capacity(512);
    write_head(&mut body, user.id, view.revision(), now);
    let answer = body.len();
    write_end(&mut body, evaluated.resolution.valid_until, stale);
    let _ = write!(body, ",\"name\":\"{}\",", flag.0);
    write_result(&mut body, &evaluated, app.settings.show_reasons_to_users);
    body.push('}');
    let mut tally = Tally::default();
    tally.count(&evaluated.resolution);
    tally.publish();
    respond(&known, &tag(user.id.as_bytes(), view.revision().epoch, &body.as_bytes()[answer..]), body)
}

/// One of the caller's overrides.
#[derive(Serialize, ToSchema)]
pub(crate) struct MyOverride<'o> {
    id: Uuid,
    flag_name: &'o str,
    #[schema(value_type = Value)]
    override_value: &'o Value,
    enabled: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
    status: OverrideStatus,
    /// Only if the server was told to show reasons to users.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Option<&'o str>>,
}

impl<'o> MyOverride<'o> {
    fn show(o: OverrideRef<'o>, now: Instant, reasons: bool) -> Self {
        Self {
            id: o.id,
            flag_name: o.flag_name,
            override_value: o.value.value(),
            enabled: o.enabled,
            created_at: o.created_at,
            updated_at: o.updated_at,
            expires_at: o.expires_at,
            status: o.status(now).into(),
            reason: reasons.then_some(o.reason),
        }
    }
}

/// The caller's overrides, whatever their status.
#[derive(Serialize, ToSchema)]
pub(crate) struct MyOverrides<'o> {
    user_id: Uuid,
    /// `<epoch>:<number>`
    revision: String,
    #[schema(value_type = String, format = DateTime)]
    evaluated_at: Instant,
    stale: bool,
    /// By flag name.
    overrides: Vec<MyOverride<'o>>,
}

/// My overrides
///
/// Those of flags that are visible to clients, whatever their status.
#[utoipa::path(
    get, path = "/api/flags/me/overrides", tag = "my flags", operation_id = "get_my_overrides",
    responses((status = 200, body = MyOverrides), (status = "default", response = ProblemResponse)),
)]
async fn my_overrides(caller: Require<OwnFlags>, app: Data<App>) -> HandlerResult {
    let now = app.evaluation.now();
    let user_id = caller.granted.id;
    let stale = app.evaluation.replica().is_stale();
    let view = app.evaluation.replica().read();
    let visible = |o: &OverrideRef<'_>| view.flag(o.flag_name).is_some_and(|flag| flag.compiled().client_visible());
    let reasons = app.settings.show_reasons_to_users;
    let body = MyOverrides {
        user_id,
        revision: view.revision().to_string(),
        evaluated_at: now,
        stale,
        overrides: view.overrides_of(user_id).filter(visible).map(|o| MyOverride::show(o, now, reasons)).collect(),
    };
    Ok(private(HttpResponse::Ok()).json(&body))
}

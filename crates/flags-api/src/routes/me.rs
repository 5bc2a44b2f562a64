//! What the caller gets: their flag values and their overrides. No database work, and no allocation per flag.

use std::fmt::Write as _;

use actix_web::{
    HttpResponse,
    http::header,
    web::{self, Data},
};
use flags_domain::{Instant, Resolution};
use flags_service::{
    evaluation::Evaluated,
    replica::{KnownUser, OverrideRef, View},
};
use flags_store::log::Revision;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::{Routes, answer::Answer};
use crate::{
    app::App,
    auth::{OwnFlags, Require},
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
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "as above")]
pub(crate) enum Source {
    Override,
    TargetingRule,
    ScheduledChange,
    Default,
    Disabled,
}

/// My flag values
///
/// Those of flags that are visible to clients. Supports `If-None-Match`, and `Flags-Min-Revision` for answers no older
/// than a change one knows of.
#[utoipa::path(
    get, path = "/api/flags/me", tag = "my flags", operation_id = "get_my_flags",
    params(("Flags-Min-Revision" = Option<String>, Header)),
    responses((status = 200, body = MyFlags), (status = 304, description = "The reader has it already"), (status = "default", response = ProblemResponse)),
)]
async fn my_flags(caller: Require<OwnFlags>, app: Data<App>, known: IfNoneMatch) -> Answer {
    let now = app.evaluation.now();
    let user = caller.granted;
    let stale = app.evaluation.replica().is_stale();
    let view = app.evaluation.replica().read();
    let mut body = String::with_capacity(128 * view.flag_count() + 512);
    write_head(&mut body, user.id, view.revision(), now);
    let answer = body.len();
    body.push_str(",\"flags\":");
    let valid_until = write_flags(&mut body, &view, &user, now, app.settings.show_reasons_to_users);
    write_end(&mut body, valid_until, stale);
    body.push('}');
    let etag = etag(user.id, view.revision().epoch, &body.as_bytes()[answer..]);
    drop(view);
    respond(&known, etag, body)
}

/// One of my flag values
#[utoipa::path(
    get, path = "/api/flags/me/{flag_name}", tag = "my flags", operation_id = "get_my_flag",
    params(("flag_name" = String, Path), ("Flags-Min-Revision" = Option<String>, Header)),
    responses((status = 200, body = MyOneFlag), (status = 304, description = "The reader has it already"), (status = "default", response = ProblemResponse)),
)]
async fn my_flag(caller: Require<OwnFlags>, app: Data<App>, flag: PathFlag, known: IfNoneMatch) -> Answer {
    let now = app.evaluation.now();
    let user = caller.granted;
    let stale = app.evaluation.replica().is_stale();
    let view = app.evaluation.replica().read();
    let found = view.evaluate(&flag.0, &user, now).filter(|evaluated| evaluated.flag.client_visible());
    let evaluated = found.ok_or_else(|| Problem::not_found("flag_not_found", "there is no such flag"))?;
    let mut body = String::with_capacity(512);
    write_head(&mut body, user.id, view.revision(), now);
    let answer = body.len();
    write_end(&mut body, evaluated.resolution.valid_until, stale);
    let _ = write!(body, ",\"name\":\"{}\",", flag.0);
    write_result(&mut body, &evaluated, app.settings.show_reasons_to_users);
    body.push('}');
    respond(&known, etag(user.id, view.revision().epoch, &body.as_bytes()[answer..]), body)
}

/// An object of all visible flags; returns the earliest of their `valid_until`.
fn write_flags(out: &mut String, view: &View<'_>, user: &KnownUser, now: Instant, reasons: bool) -> Option<Instant> {
    let mut valid_until: Option<Instant> = None;
    out.push('{');
    let empty = out.len();
    for evaluated in view.evaluate_all(user, now).filter(|evaluated| evaluated.flag.client_visible()) {
        if out.len() > empty {
            out.push(',');
        }
        // A flag's name needs no escaping.
        out.push('"');
        out.push_str(evaluated.flag.name());
        out.push_str("\":{");
        write_result(out, &evaluated, reasons);
        out.push('}');
        valid_until = [valid_until, evaluated.resolution.valid_until].into_iter().flatten().min();
    }
    out.push('}');
    valid_until
}

/// The members of one result.
fn write_result(out: &mut String, evaluated: &Evaluated<'_>, reasons: bool) {
    write_value(out, &evaluated.resolution);
    out.push_str(",\"flag_type\":\"");
    out.push_str(evaluated.flag.flag_type().as_str());
    out.push('"');
    if let Some(user_override) = &evaluated.user_override {
        out.push_str(",\"override\":");
        write_override(out, user_override, reasons);
    }
    if let Some(then) = &evaluated.then {
        out.push_str(",\"then\":{");
        write_value(out, then);
        out.push('}');
    }
}

fn write_value(out: &mut String, resolution: &Resolution<'_>) {
    out.push_str("\"value\":");
    out.push_str(resolution.value.json());
    out.push_str(",\"variant\":");
    out.push_str(resolution.variant.map_or("null", |variant| variant.id_json()));
    out.push_str(",\"source\":\"");
    out.push_str(resolution.source.as_str());
    out.push('"');
}

fn write_override(out: &mut String, user_override: &OverrideRef<'_>, reasons: bool) {
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "{{\"created_at\":\"{}\",\"updated_at\":\"{}\",\"expires_at\":",
        user_override.created_at, user_override.updated_at
    );
    write_instant(out, user_override.expires_at);
    if reasons {
        out.push_str(",\"reason\":");
        out.push_str(&Value::from(user_override.reason).to_string());
    }
    out.push('}');
}

fn write_instant(out: &mut String, at: Option<Instant>) {
    match at {
        Some(at) => {
            let _ = write!(out, "\"{at}\"");
        }
        None => out.push_str("null"),
    }
}

fn write_head(body: &mut String, user_id: Uuid, revision: Revision, now: Instant) {
    let _ = write!(body, "{{\"user_id\":\"{user_id}\",\"revision\":\"{revision}\",\"evaluated_at\":\"{now}\"");
}

fn write_end(body: &mut String, valid_until: Option<Instant>, stale: bool) {
    body.push_str(",\"valid_until\":");
    write_instant(body, valid_until);
    let _ = write!(body, ",\"stale\":{stale}");
}

/// A tag over everything but the revision and the instant of evaluation.
fn etag(user_id: Uuid, epoch: Uuid, answer: &[u8]) -> String {
    let hash = xxh3_128(answer) ^ xxh3_128(user_id.as_bytes()) ^ xxh3_128(epoch.as_bytes()).rotate_left(1);
    format!("\"{hash:032x}\"")
}

fn respond(known: &IfNoneMatch, etag: String, body: String) -> Answer {
    let mut response = if known.has(&etag) { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((header::ETAG, etag.as_str()))
        .insert_header((header::CACHE_CONTROL, "private, no-cache"))
        .insert_header((header::VARY, "Authorization, Cookie"));
    if known.has(&etag) {
        return Ok(response.finish());
    }
    Ok(response.content_type("application/json").body(body))
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
    params(("Flags-Min-Revision" = Option<String>, Header)),
    responses((status = 200, body = MyOverrides), (status = "default", response = ProblemResponse)),
)]
async fn my_overrides(caller: Require<OwnFlags>, app: Data<App>) -> Answer {
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
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "private, no-cache"))
        .insert_header((header::VARY, "Authorization, Cookie"))
        .json(&body))
}

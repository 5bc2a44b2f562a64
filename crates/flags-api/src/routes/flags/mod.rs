//! Feature flags, for admins, support and viewers.

mod list;
mod request;
mod response;

use actix_web::{
    HttpRequest,
    web::{self, Data},
};
use flags_domain::Instant;
use flags_service::flags::{FlagDetail, FlagItem, FlagPatch, NewFlag};
use flags_store::{Committed, change_log::Revision, flags::FlagFilter};

use self::{
    list::ListFlagsQuery,
    request::{CreateFlagRequest, PatchFlagRequest, PutTargetingRulesRequest},
    response::{FeatureFlagResponse, FlagItemResponse},
};
use super::reply::{self, HandlerResult, Reply, child_location};
use crate::{
    auth::{ManageFlags, ReadFlags, Require},
    extract::{FlagNameParam, IfMatch, Json, PageCursor, Query},
    problem::ProblemResponse,
    route_facts::RouteFacts,
    route_registry::RouteRegistry,
    state::App,
    wire::{PageResponse, rules_into_domain},
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_list>(web::to(list), RouteFacts::api());
    routes.add::<__path_create>(web::to(create), RouteFacts::change().idempotent());
    routes.add::<__path_get>(web::to(get), RouteFacts::resource());
    routes.add::<__path_patch>(web::to(patch), RouteFacts::update());
    routes.add::<__path_delete>(web::to(delete), RouteFacts::update());
    routes.add::<__path_archive>(web::to(archive), RouteFacts::update().idempotent());
    routes.add::<__path_restore>(web::to(restore), RouteFacts::update().idempotent());
    routes.add::<__path_put_rules>(web::to(put_rules), RouteFacts::update());
}

/// List flags
#[utoipa::path(
    get, path = "/api/admin/feature-flags", tag = "flags", operation_id = "list_flags", params(ListFlagsQuery),
    responses(
        (status = 200, body = PageResponse<FlagItemResponse>),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn list(_: Require<ReadFlags>, app: Data<App>, Query(query): Query<ListFlagsQuery>) -> HandlerResult {
    let now = app.evaluation.now();
    let search = query.search.map(|text| text.to_lowercase());
    let filter = FlagFilter { search, tag: query.tag, archived: query.archived };
    let order = query.sort.order(query.cursor.map(|cursor| cursor.0))?;
    let page = app.flags.list(&filter, order, query.limit.0).await?;
    let page = PageResponse::new(
        page,
        |last| PageCursor(query.sort.cursor_after(last)).encode(),
        |item| FlagItemResponse::from_item(&item, now),
    );
    reply::json(&page)
}

/// Create a flag
#[utoipa::path(
    post, path = "/api/admin/feature-flags", tag = "flags", operation_id = "create_flag",
    request_body = CreateFlagRequest,
    responses((status = 201, body = FeatureFlagResponse), (status = "default", response = ProblemResponse)),
)]
async fn create(
    author: Require<ManageFlags>,
    app: Data<App>,
    Json(body): Json<CreateFlagRequest>,
    request: HttpRequest,
) -> HandlerResult {
    let input: NewFlag = body.try_into()?;
    let (now, location) = (app.evaluation.now(), child_location(request.path(), &input.name));
    let reply = move |flag: &FlagDetail, committed: &Committed| {
        reply::created(committed, flag.record.revision, location.clone(), &FeatureFlagResponse::from_detail(flag, now))
    };
    reply::execute_idempotently(&request, author.granted, reply, async |command| app.flags.create(command, input).await)
        .await
}

/// Get a flag
///
/// A flag whose definition this server cannot read has the field `unreadable`.
#[utoipa::path(
    get, path = "/api/admin/feature-flags/{flag_name}", tag = "flags", operation_id = "get_flag",
    params(("flag_name" = String, Path, description = "Name of the flag")),
    responses((status = 200, body = FlagItemResponse), (status = "default", response = ProblemResponse)),
)]
async fn get(_: Require<ReadFlags>, app: Data<App>, flag: FlagNameParam) -> HandlerResult {
    let now = app.evaluation.now();
    let item = app.flags.get(&flag.0).await?;
    let revision = Revision { number: item.revision(), ..app.evaluation.replica().revision() };
    reply::resource(revision, &FlagItemResponse::from_item(&item, now))
}

/// Update a flag
///
/// A new value of `default` or `enabled` counts as a manual change. It replaces the effect of scheduled changes that
/// have already taken effect; pending ones still apply.
#[utoipa::path(
    patch, path = "/api/admin/feature-flags/{flag_name}", tag = "flags", operation_id = "patch_flag",
    params(("flag_name" = String, Path, description = "Name of the flag")), request_body = PatchFlagRequest,
    responses((status = 200, body = FeatureFlagResponse), (status = "default", response = ProblemResponse)),
)]
async fn patch(
    author: Require<ManageFlags>,
    app: Data<App>,
    flag: FlagNameParam,
    if_match: IfMatch,
    Json(body): Json<PatchFlagRequest>,
) -> HandlerResult {
    let outcome = app.flags.patch(author.granted, &flag.0, body.try_into()?, if_match.0).await?;
    Ok(changed_flag_reply(app.evaluation.now())(&outcome.output, &outcome.committed).into())
}

/// Replace the targeting rules of a flag
#[utoipa::path(
    put, path = "/api/admin/feature-flags/{flag_name}/targeting-rules", tag = "flags",
    operation_id = "put_targeting_rules",
    params(("flag_name" = String, Path, description = "Name of the flag")), request_body = PutTargetingRulesRequest,
    responses((status = 200, body = FeatureFlagResponse), (status = "default", response = ProblemResponse)),
)]
async fn put_rules(
    author: Require<ManageFlags>,
    app: Data<App>,
    flag: FlagNameParam,
    if_match: IfMatch,
    Json(body): Json<PutTargetingRulesRequest>,
) -> HandlerResult {
    let patch = FlagPatch { targeting_rules: Some(rules_into_domain(body.targeting_rules)?), ..FlagPatch::default() };
    let outcome = app.flags.patch(author.granted, &flag.0, patch, if_match.0).await?;
    Ok(changed_flag_reply(app.evaluation.now())(&outcome.output, &outcome.committed).into())
}

/// Archive a flag
///
/// An archived flag has no evaluation result, not even for users with an override. Cancels the flag's pending scheduled
/// changes. A flag whose definition this server cannot read is archived without changing its definition and its
/// scheduled changes.
#[utoipa::path(
    post, path = "/api/admin/feature-flags/{flag_name}/archive", tag = "flags", operation_id = "archive_flag",
    params(("flag_name" = String, Path, description = "Name of the flag")),
    responses((status = 200, body = FlagItemResponse), (status = "default", response = ProblemResponse)),
)]
async fn archive(
    author: Require<ManageFlags>,
    app: Data<App>,
    flag: FlagNameParam,
    if_match: IfMatch,
    request: HttpRequest,
) -> HandlerResult {
    let now = app.evaluation.now();
    let reply = move |flag: &FlagItem, committed: &Committed| {
        reply::changed(committed, flag.revision(), &FlagItemResponse::from_item(flag, now))
    };
    let execute = async |command| app.flags.archive(command, &flag.0, if_match.0).await;
    reply::execute_idempotently(&request, author.granted, reply, execute).await
}

/// Returns a function that builds the response to a change of a flag. The response shows the effective state at `now`.
fn changed_flag_reply(now: Instant) -> impl Fn(&FlagDetail, &Committed) -> Reply {
    move |flag, committed| reply::changed(committed, flag.record.revision, &FeatureFlagResponse::from_detail(flag, now))
}

/// Restore an archived flag
///
/// Overrides that have not expired take effect again. Scheduled changes that were cancelled by archiving stay
/// cancelled.
#[utoipa::path(
    post, path = "/api/admin/feature-flags/{flag_name}/restore", tag = "flags", operation_id = "restore_flag",
    params(("flag_name" = String, Path, description = "Name of the flag")),
    responses((status = 200, body = FeatureFlagResponse), (status = "default", response = ProblemResponse)),
)]
async fn restore(
    author: Require<ManageFlags>,
    app: Data<App>,
    flag: FlagNameParam,
    if_match: IfMatch,
    request: HttpRequest,
) -> HandlerResult {
    let execute = async |command| app.flags.restore(command, &flag.0, if_match.0).await;
    reply::execute_idempotently(&request, author.granted, changed_flag_reply(app.evaluation.now()), execute).await
}

/// Delete an archived flag
///
/// Also deletes the flag's overrides and scheduled changes.
#[utoipa::path(
    delete, path = "/api/admin/feature-flags/{flag_name}", tag = "flags", operation_id = "delete_flag",
    params(("flag_name" = String, Path, description = "Name of the flag")),
    responses((status = 204, description = "Flag deleted"), (status = "default", response = ProblemResponse)),
)]
async fn delete(author: Require<ManageFlags>, app: Data<App>, flag: FlagNameParam, if_match: IfMatch) -> HandlerResult {
    reply::no_content(&app.flags.delete(author.granted, &flag.0, if_match.0).await?)
}

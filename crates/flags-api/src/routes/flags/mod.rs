//! Flags, for admins and viewers.

mod list;
mod request;
mod response;

use actix_web::{
    HttpRequest,
    web::{self, Data},
};
use flags_domain::Instant;
use flags_service::flags::{FlagDetail, FlagInput, FlagPatch};
use flags_store::{Committed, change_log::Revision, flags::FlagFilter};

use self::{
    list::FlagQuery,
    request::{CreateFlag, PatchFlag, PutTargetingRules},
    response::FeatureFlag,
};
use super::{
    Routes, location_below,
    reply::{self, HandlerResult, Reply},
};
use crate::{
    app::App,
    auth::{ManageFlags, ReadFlags, Require},
    extract::{Cursor, IfMatch, Json, PathFlag, Query},
    problem::ProblemResponse,
    wire::{List, read_rules},
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_list>(web::to(list));
    routes.add::<__path_create>(web::to(create));
    routes.add::<__path_get>(web::to(get));
    routes.add::<__path_patch>(web::to(patch));
    routes.add::<__path_delete>(web::to(delete));
    routes.add::<__path_archive>(web::to(archive));
    routes.add::<__path_restore>(web::to(restore));
    routes.add::<__path_put_rules>(web::to(put_rules));
}

/// All flags
#[utoipa::path(
    get, path = "/api/admin/feature-flags", tag = "flags", operation_id = "list_flags", params(FlagQuery),
    responses((status = 200, body = List<FeatureFlag>), (status = "default", response = ProblemResponse)),
)]
async fn list(_: Require<ReadFlags>, app: Data<App>, Query(query): Query<FlagQuery>) -> HandlerResult {
    let now = app.evaluation.now();
    let search = query.search.map(|text| text.to_lowercase());
    let filter = FlagFilter { search, tag: query.tag, archived: query.archived };
    let order = query.sort.order(query.cursor.map(|cursor| cursor.0))?;
    let page = app.flags.list(&filter, order, query.limit.0).await?;
    let cursor = |last: &FlagDetail| Cursor(query.sort.place(last)).encode();
    reply::json(&List::new(page, cursor, |detail| FeatureFlag::show(&detail, now)))
}

/// Create a flag
#[utoipa::path(
    post, path = "/api/admin/feature-flags", tag = "flags", operation_id = "create_flag", request_body = CreateFlag,
    responses((status = 201, body = FeatureFlag), (status = "default", response = ProblemResponse)),
)]
async fn create(
    author: Require<ManageFlags>,
    app: Data<App>,
    Json(body): Json<CreateFlag>,
    request: HttpRequest,
) -> HandlerResult {
    let input: FlagInput = body.try_into()?;
    let (now, location) = (app.evaluation.now(), location_below(request.path(), &input.name));
    let reply = move |flag: &FlagDetail, committed: &Committed| {
        reply::created(committed, flag.record.revision, location.clone(), &FeatureFlag::show(flag, now))
    };
    reply::execute_idempotently(&request, author.granted, reply, async |intent| app.flags.create(intent, input).await)
        .await
}

/// One flag
#[utoipa::path(
    get, path = "/api/admin/feature-flags/{flag_name}", tag = "flags", operation_id = "get_flag",
    params(("flag_name" = String, Path)),
    responses((status = 200, body = FeatureFlag), (status = "default", response = ProblemResponse)),
)]
async fn get(_: Require<ReadFlags>, app: Data<App>, flag: PathFlag) -> HandlerResult {
    let now = app.evaluation.now();
    let detail = app.flags.get(&flag.0).await?;
    let revision = Revision { number: detail.record.revision, ..app.evaluation.replica().revision() };
    reply::resource(revision, &FeatureFlag::show(&detail, now))
}

/// Change fields of a flag
#[utoipa::path(
    patch, path = "/api/admin/feature-flags/{flag_name}", tag = "flags", operation_id = "patch_flag",
    params(("flag_name" = String, Path)), request_body = PatchFlag,
    responses((status = 200, body = FeatureFlag), (status = "default", response = ProblemResponse)),
)]
async fn patch(
    author: Require<ManageFlags>,
    app: Data<App>,
    flag: PathFlag,
    expected: IfMatch,
    Json(body): Json<PatchFlag>,
) -> HandlerResult {
    let done = app.flags.patch(author.granted, &flag.0, body.try_into()?, expected.0).await?;
    Ok(show_changed(app.evaluation.now())(&done.output, &done.committed).into())
}

/// Replace the targeting rules of a flag
#[utoipa::path(
    put, path = "/api/admin/feature-flags/{flag_name}/targeting-rules", tag = "flags", operation_id = "put_targeting_rules",
    params(("flag_name" = String, Path)), request_body = PutTargetingRules,
    responses((status = 200, body = FeatureFlag), (status = "default", response = ProblemResponse)),
)]
async fn put_rules(
    author: Require<ManageFlags>,
    app: Data<App>,
    flag: PathFlag,
    expected: IfMatch,
    Json(body): Json<PutTargetingRules>,
) -> HandlerResult {
    let patch = FlagPatch { targeting_rules: Some(read_rules(body.targeting_rules)?), ..FlagPatch::default() };
    let done = app.flags.patch(author.granted, &flag.0, patch, expected.0).await?;
    Ok(show_changed(app.evaluation.now())(&done.output, &done.committed).into())
}

/// Put a flag out of use
///
/// No result for anybody, not even by override; pending scheduled changes are cancelled.
#[utoipa::path(
    post, path = "/api/admin/feature-flags/{flag_name}/archive", tag = "flags", operation_id = "archive_flag",
    params(("flag_name" = String, Path)),
    responses((status = 200, body = FeatureFlag), (status = "default", response = ProblemResponse)),
)]
async fn archive(
    author: Require<ManageFlags>,
    app: Data<App>,
    flag: PathFlag,
    expected: IfMatch,
    request: HttpRequest,
) -> HandlerResult {
    let carry_out = async |intent| app.flags.archive(intent, &flag.0, expected.0).await;
    reply::execute_idempotently(&request, author.granted, show_changed(app.evaluation.now()), carry_out).await
}

/// The answer to a change of a flag.
fn show_changed(now: Instant) -> impl Fn(&FlagDetail, &Committed) -> Reply {
    move |flag, committed| reply::changed(committed, flag.record.revision, &FeatureFlag::show(flag, now))
}

/// Put an archived flag back in use
#[utoipa::path(
    post, path = "/api/admin/feature-flags/{flag_name}/restore", tag = "flags", operation_id = "restore_flag",
    params(("flag_name" = String, Path)),
    responses((status = 200, body = FeatureFlag), (status = "default", response = ProblemResponse)),
)]
async fn restore(
    author: Require<ManageFlags>,
    app: Data<App>,
    flag: PathFlag,
    expected: IfMatch,
    request: HttpRequest,
) -> HandlerResult {
    let carry_out = async |intent| app.flags.restore(intent, &flag.0, expected.0).await;
    reply::execute_idempotently(&request, author.granted, show_changed(app.evaluation.now()), carry_out).await
}

/// Delete an archived flag with its overrides and scheduled changes
#[utoipa::path(
    delete, path = "/api/admin/feature-flags/{flag_name}", tag = "flags", operation_id = "delete_flag",
    params(("flag_name" = String, Path)),
    responses((status = 204, description = "Deleted"), (status = "default", response = ProblemResponse)),
)]
async fn delete(author: Require<ManageFlags>, app: Data<App>, flag: PathFlag, expected: IfMatch) -> HandlerResult {
    reply::removed(&app.flags.delete(author.granted, &flag.0, expected.0).await?)
}

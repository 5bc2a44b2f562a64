//! Flags, for admins and viewers.

use actix_web::{
    HttpRequest,
    web::{self, Data},
};
use flags_domain::{self as domain, FlagName, Instant, Violation};
use flags_service::flags::{FlagDetail, FlagInput, FlagPatch};
use flags_store::{
    Committed,
    flags::{FlagFilter, FlagOrder},
    log::Revision,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    Routes,
    answer::{self, Answer, Reply},
    location_below,
};
use crate::{
    app::App,
    auth::{ManageFlags, ReadFlags, Require},
    extract::{Body, Cursor, IfMatch, Json, Limit, PathFlag, Query, foreign_cursor, present, short_text},
    problem::{Problem, ProblemResponse},
    wire::{FlagType, List, Serve, TargetingRule, Variant, read_rules, yes},
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

/// A flag.
#[derive(Serialize, ToSchema)]
pub(crate) struct FeatureFlag {
    name: String,
    flag_type: FlagType,
    #[schema(required)]
    description: Option<String>,
    #[schema(required)]
    owner: Option<String>,
    tags: Vec<String>,
    /// The switch, as last set by hand.
    enabled: bool,
    variants: Vec<Variant>,
    /// What is served when nothing above decides, as last set by hand.
    default: Serve,
    off_variant: String,
    targeting_rules: Vec<TargetingRule>,
    salt: String,
    client_visible: bool,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    archived_at: Option<Instant>,
    #[schema(value_type = String, format = DateTime)]
    default_set_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    enabled_set_at: Instant,
    effective: Effective,
    /// Its unexpired overrides; 0 while archived.
    override_count: i64,
    /// Its scheduled changes to come.
    pending_change_count: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    /// The revision of its last change.
    revision: i64,
}

/// Switch and default as they act now, scheduled changes included.
#[derive(Serialize, ToSchema)]
pub(crate) struct Effective {
    enabled: bool,
    default: Serve,
    /// The scheduled change that `default` comes from.
    #[schema(required)]
    scheduled_change_id: Option<Uuid>,
}

impl FeatureFlag {
    fn show(detail: &FlagDetail, now: Instant) -> Self {
        let (record, flag) = (&detail.record, &detail.record.flag);
        let effective = detail.effective(now);
        Self {
            name: flag.name.to_string(),
            flag_type: flag.flag_type.into(),
            description: flag.description.clone(),
            owner: flag.owner.clone(),
            tags: flag.tags.clone(),
            enabled: flag.enabled,
            variants: flag.variants.iter().map(Into::into).collect(),
            default: (&flag.default).into(),
            off_variant: flag.off_variant.clone(),
            targeting_rules: flag.targeting_rules.iter().map(Into::into).collect(),
            salt: flag.salt.clone(),
            client_visible: flag.client_visible,
            archived_at: flag.archived_at,
            default_set_at: flag.default_set_at,
            enabled_set_at: flag.enabled_set_at,
            effective: Effective {
                enabled: effective.enabled,
                default: effective.default.into(),
                scheduled_change_id: effective.scheduled_change_id,
            },
            override_count: detail.override_count,
            pending_change_count: detail.pending_change_count,
            created_at: record.created_at,
            updated_at: record.updated_at,
            revision: record.revision,
        }
    }
}

/// A new flag. A boolean flag needs only name and type: it gets the variants `on` and `off` and serves `off`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateFlag {
    #[schema(pattern = r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$", max_length = 255)]
    name: String,
    flag_type: FlagType,
    #[schema(max_length = 2000)]
    description: Option<String>,
    #[schema(max_length = 255)]
    owner: Option<String>,
    #[serde(default)]
    #[schema(max_items = 50)]
    tags: Vec<String>,
    #[serde(default = "yes")]
    enabled: bool,
    variants: Option<Vec<Variant>>,
    default: Option<Serve>,
    off_variant: Option<String>,
    #[serde(default)]
    #[schema(max_items = 1000)]
    targeting_rules: Vec<TargetingRule>,
    /// Bucketing salt; the name if left out.
    salt: Option<String>,
    #[serde(default = "yes")]
    client_visible: bool,
}

/// The fields of a flag that are to change. Each named field is replaced whole.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchFlag {
    /// `null` clears it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 2000)]
    description: Option<Option<String>>,
    /// `null` clears it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 255)]
    owner: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, max_items = 50)]
    tags: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    enabled: Option<bool>,
    /// Reordering them moves users of splits between variants.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    variants: Option<Vec<Variant>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    default: Option<Serve>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    off_variant: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, max_items = 1000)]
    targeting_rules: Option<Vec<TargetingRule>>,
    /// Changing it moves users of splits between variants.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    salt: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    client_visible: Option<bool>,
}

/// All targeting rules of a flag, first match first.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutTargetingRules {
    #[schema(max_items = 1000)]
    targeting_rules: Vec<TargetingRule>,
}

/// Largest body with rules in it, in bytes.
const RULES_LIMIT: usize = 2 * 1024 * 1024;

impl Body for CreateFlag {
    const LIMIT: usize = RULES_LIMIT;
}
impl Body for PatchFlag {
    const LIMIT: usize = RULES_LIMIT;
}
impl Body for PutTargetingRules {
    const LIMIT: usize = RULES_LIMIT;
}

impl TryFrom<CreateFlag> for FlagInput {
    type Error = Violation;

    fn try_from(body: CreateFlag) -> Result<Self, Violation> {
        let name = FlagName::new(&body.name).map_err(|e| Violation::new("/name", "invalid_name", e.to_string()))?;
        if name.as_str() == "overrides" {
            let detail = "this name is taken by /api/flags/me/overrides";
            return Err(Violation::new("/name", "reserved_name", detail));
        }
        Ok(Self {
            name,
            flag_type: body.flag_type.into(),
            description: body.description,
            owner: body.owner,
            tags: body.tags,
            enabled: body.enabled,
            variants: body.variants.map(read_variants),
            default: body.default.map(|serve| serve.read("/default")).transpose()?,
            off_variant: body.off_variant,
            targeting_rules: read_rules(body.targeting_rules)?,
            salt: body.salt,
            client_visible: body.client_visible,
        })
    }
}

impl TryFrom<PatchFlag> for FlagPatch {
    type Error = Violation;

    fn try_from(body: PatchFlag) -> Result<Self, Violation> {
        Ok(Self {
            description: body.description,
            owner: body.owner,
            tags: body.tags,
            enabled: body.enabled,
            variants: body.variants.map(read_variants),
            default: body.default.map(|serve| serve.read("/default")).transpose()?,
            off_variant: body.off_variant,
            targeting_rules: body.targeting_rules.map(read_rules).transpose()?,
            salt: body.salt,
            client_visible: body.client_visible,
        })
    }
}

fn read_variants(variants: Vec<Variant>) -> Vec<domain::Variant> {
    variants.into_iter().map(Into::into).collect()
}

/// In what order flags are listed.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
pub(crate) enum FlagSort {
    /// By name.
    #[default]
    #[serde(rename = "name")]
    Name,
    /// Newest change first.
    #[serde(rename = "-updated_at")]
    NewestChange,
}

/// Which flags, and which part of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FlagQuery {
    /// Any part of name or description, case ignored.
    #[serde(default, deserialize_with = "short_text")]
    #[param(max_length = 255)]
    search: Option<String>,
    #[serde(default, deserialize_with = "short_text")]
    #[param(max_length = 255)]
    tag: Option<String>,
    /// Archived ones only, or unarchived ones only.
    archived: Option<bool>,
    #[serde(default)]
    #[param(inline, value_type = Option<FlagSort>)]
    sort: FlagSort,
    /// Most items, 1 to 200.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// `next_cursor` of the part before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<FlagPlace>>,
}

/// The place of a flag in either order.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) enum FlagPlace {
    Name(String),
    Revision(i64, String),
}

impl FlagSort {
    fn order(self, after: Option<FlagPlace>) -> Result<FlagOrder, Problem> {
        match (self, after) {
            (Self::Name, None) => Ok(FlagOrder::Name(None)),
            (Self::Name, Some(FlagPlace::Name(name))) => Ok(FlagOrder::Name(Some(name))),
            (Self::NewestChange, None) => Ok(FlagOrder::NewestChange(None)),
            (Self::NewestChange, Some(FlagPlace::Revision(at, name))) => Ok(FlagOrder::NewestChange(Some((at, name)))),
            _ => Err(foreign_cursor()),
        }
    }

    fn place(self, last: &FlagDetail) -> FlagPlace {
        let name = last.record.flag.name.to_string();
        match self {
            Self::Name => FlagPlace::Name(name),
            Self::NewestChange => FlagPlace::Revision(last.record.revision, name),
        }
    }
}

/// All flags
#[utoipa::path(
    get, path = "/api/admin/feature-flags", tag = "flags", operation_id = "list_flags", params(FlagQuery),
    responses((status = 200, body = List<FeatureFlag>), (status = "default", response = ProblemResponse)),
)]
async fn list(_: Require<ReadFlags>, app: Data<App>, Query(query): Query<FlagQuery>) -> Answer {
    let now = app.evaluation.now();
    let search = query.search.map(|text| text.to_lowercase());
    let filter = FlagFilter { search, tag: query.tag, archived: query.archived };
    let order = query.sort.order(query.cursor.map(|cursor| cursor.0))?;
    let page = app.flags.list(&filter, order, query.limit.0).await?;
    let cursor = |last: &FlagDetail| Cursor(query.sort.place(last)).encode();
    answer::json(&List::new(page, cursor, |detail| FeatureFlag::show(&detail, now)))
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
) -> Answer {
    let input: FlagInput = body.try_into()?;
    let (now, location) = (app.evaluation.now(), location_below(request.path(), &input.name));
    let reply = move |flag: &FlagDetail, committed: &Committed| {
        answer::created(committed, flag.record.revision, location.clone(), &FeatureFlag::show(flag, now))
    };
    answer::once(&request, author.granted, reply, async |intent| app.flags.create(intent, input).await).await
}

/// One flag
#[utoipa::path(
    get, path = "/api/admin/feature-flags/{flag_name}", tag = "flags", operation_id = "get_flag",
    params(("flag_name" = String, Path)),
    responses((status = 200, body = FeatureFlag), (status = "default", response = ProblemResponse)),
)]
async fn get(_: Require<ReadFlags>, app: Data<App>, flag: PathFlag) -> Answer {
    let now = app.evaluation.now();
    let detail = app.flags.get(&flag.0).await?;
    let revision = Revision { number: detail.record.revision, ..app.evaluation.replica().revision() };
    answer::resource(revision, &FeatureFlag::show(&detail, now))
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
) -> Answer {
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
) -> Answer {
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
) -> Answer {
    let carry_out = async |intent| app.flags.archive(intent, &flag.0, expected.0).await;
    answer::once(&request, author.granted, show_changed(app.evaluation.now()), carry_out).await
}

/// The answer to a change of a flag.
fn show_changed(now: Instant) -> impl Fn(&FlagDetail, &Committed) -> Reply {
    move |flag, committed| answer::changed(committed, flag.record.revision, &FeatureFlag::show(flag, now))
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
) -> Answer {
    let carry_out = async |intent| app.flags.restore(intent, &flag.0, expected.0).await;
    answer::once(&request, author.granted, show_changed(app.evaluation.now()), carry_out).await
}

/// Delete an archived flag with its overrides and scheduled changes
#[utoipa::path(
    delete, path = "/api/admin/feature-flags/{flag_name}", tag = "flags", operation_id = "delete_flag",
    params(("flag_name" = String, Path)),
    responses((status = 204, description = "Deleted"), (status = "default", response = ProblemResponse)),
)]
async fn delete(author: Require<ManageFlags>, app: Data<App>, flag: PathFlag, expected: IfMatch) -> Answer {
    answer::removed(&app.flags.delete(author.granted, &flag.0, expected.0).await?)
}

//! Audit log, for admins, support and viewers.

use actix_web::web::{self, Data};
use flags_domain::Instant;
use flags_store::{
    audit::{self as store, AuditPosition},
    change_log,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::reply::{self, HandlerResult};
use crate::{
    auth::{ReadAuditLog, Require},
    extract::{PageCursor, PageLimit, Query},
    problem::ProblemResponse,
    route_facts::RouteFacts,
    route_registry::RouteRegistry,
    state::App,
    wire::{PageResponse, wire_enum},
};

pub(super) fn routes(routes: &mut RouteRegistry) {
    routes.add::<__path_list>(web::to(list), RouteFacts::api());
}

wire_enum! {
    /// Kind of change.
    ///
    /// - `created`, `updated`, `deleted`: any resource
    /// - `archived`, `restored`: a flag
    /// - `cancelled`: a scheduled change was cancelled
    /// - `applied`: a scheduled change took effect
    /// - `expired`: an override expired and was removed
    /// - `revoked`: an API token was revoked
    /// - `erased`: e-mail addresses, external ids and names were erased from the audit log
    WireAuditAction as AuditAction = change_log::Action {
        Created, Updated, Deleted, Expired, Archived, Restored, Cancelled, Applied, Revoked, Erased,
    }
}

/// Principal that made a change.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditActor {
    /// `user:<id>`, `token:<id>` or `system:<name>`.
    pub(super) id: String,
    /// E-mail address of the user (external id of a user without one) or name of the token, kept after deletion. `null`
    /// for system actors, and if it was erased.
    #[schema(required)]
    pub(super) label: Option<String>,
}

/// One recorded change.
///
/// `before` and `after` refer to users and tokens by id only. E-mail addresses, external ids and names are in the
/// `label` fields, which can be erased.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditEntryResponse {
    pub(super) id: Uuid,
    /// Revision number of the change. Entries with the same revision were committed together.
    pub(super) revision: i64,
    /// Time of the change, by the clock of the server that made it.
    #[schema(value_type = String, format = DateTime)]
    pub(super) at: Instant,
    /// Principal that made the change.
    pub(super) actor: AuditActor,
    /// Kind of change.
    #[schema(value_type = WireAuditAction)]
    pub(super) action: String,
    /// Kind of resource: `user`, `flag`, `scheduled_change`, `override` or `api_token`.
    pub(super) entity: String,
    /// Id of the changed resource. `null` for flags, which are identified by `flag_name`.
    #[schema(required)]
    pub(super) entity_id: Option<Uuid>,
    /// Name of the API token that was changed. `null` for other resources, and if the name was erased.
    #[schema(required)]
    pub(super) entity_label: Option<String>,
    /// Flag that the change affects. `null` if it affects none.
    #[schema(required)]
    pub(super) flag_name: Option<String>,
    /// User that the change affects. `null` if it affects none.
    #[schema(required)]
    pub(super) user_id: Option<Uuid>,
    /// E-mail address of that user, or external id of a user without one. `null` if it was erased.
    #[schema(required)]
    pub(super) user_label: Option<String>,
    /// State before the change, without e-mail addresses and names of users and tokens. `null` if the resource was
    /// created.
    #[schema(required)]
    pub(super) before: Option<Value>,
    /// State after the change. `null` if the resource was deleted. For updates of users and tokens, `changed` lists the
    /// changed fields.
    #[schema(required)]
    pub(super) after: Option<Value>,
    /// Reason of the override that was changed. `null` for other resources, and for an override without a reason.
    #[schema(required)]
    pub(super) reason: Option<String>,
    /// `X-Request-Id` of the request that made the change. `null` for changes without a request.
    #[schema(required)]
    pub(super) request_id: Option<String>,
}

impl From<store::AuditRecord> for AuditEntryResponse {
    fn from(entry: store::AuditRecord) -> Self {
        Self {
            id: entry.id,
            revision: entry.position.revision,
            at: entry.at,
            actor: AuditActor { id: entry.actor, label: entry.actor_label },
            action: entry.action,
            entity: entry.resource_kind,
            entity_id: entry.resource_id,
            entity_label: entry.resource_label,
            flag_name: entry.flag_name,
            user_id: entry.user_id,
            user_label: entry.user_label,
            before: entry.before,
            after: entry.after,
            reason: entry.reason,
            request_id: entry.request_id,
        }
    }
}

/// Defines a query struct with the audit log filters and additional fields.
macro_rules! audit_query {
    ($(#[$meta:meta])* $name:ident { $($extra_fields:tt)* }) => {
        $(#[$meta])*
        #[derive(serde::Deserialize, utoipa::IntoParams)]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        pub(crate) struct $name {
            /// Only changes by this actor: `user:<id>`, `token:<id>` or `system:<name>`.
            #[serde(default, deserialize_with = "crate::extract::deserialize_search_text")]
            #[param(max_length = 255)]
            actor: Option<String>,
            /// Only changes that affect this flag.
            #[serde(default, deserialize_with = "crate::extract::deserialize_search_text")]
            #[param(max_length = 255)]
            flag_name: Option<String>,
            /// Only changes that affect this user. The user may have been deleted.
            user_id: Option<uuid::Uuid>,
            /// Only changes of this kind.
            #[param(inline)]
            action: Option<super::audit::WireAuditAction>,
            /// Only changes at or after this time.
            #[param(value_type = Option<String>, format = DateTime)]
            since: Option<flags_domain::Instant>,
            /// Only changes before this time.
            #[param(value_type = Option<String>, format = DateTime)]
            until: Option<flags_domain::Instant>,
            $($extra_fields)*
        }

        impl $name {
            fn filter(&self) -> flags_store::audit::AuditFilter {
                flags_store::audit::AuditFilter {
                    actor: self.actor.clone(),
                    flag_name: self.flag_name.clone(),
                    user_id: self.user_id,
                    action: self.action.map(Into::into),
                    since: self.since,
                    until: self.until,
                }
            }
        }
    };
}
pub(super) use audit_query;

audit_query! {
    /// Filters and pagination.
    ListAuditLogQuery {
        /// Maximum number of items. A page contains fewer if the recorded states are very large.
        #[serde(default)]
        #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
        limit: PageLimit,
        /// `next_cursor` of the previous page.
        #[param(value_type = Option<String>)]
        cursor: Option<PageCursor<(i64, i32)>>,
    }
}

/// List audit log entries
///
/// Ordered by revision, newest first.
#[utoipa::path(
    get, path = "/api/admin/audit-log", tag = "audit", operation_id = "list_audit_log", params(ListAuditLogQuery),
    responses(
        (status = 200, body = PageResponse<AuditEntryResponse>),
        (status = "default", response = ProblemResponse),
    ),
)]
async fn list(_: Require<ReadAuditLog>, app: Data<App>, Query(query): Query<ListAuditLogQuery>) -> HandlerResult {
    let filter = query.filter();
    let after = query.cursor.map(|PageCursor((revision, ord))| AuditPosition { revision, ord });
    let page = app.audit.list(&filter, after, query.limit.0).await?;
    let page = PageResponse::new(
        page,
        |last| PageCursor((last.position.revision, last.position.ord)).encode(),
        AuditEntryResponse::from,
    );
    reply::json(&page)
}

//! The audit trail, for admins and viewers.

use actix_web::web::{self, Data};
use flags_domain::Instant;
use flags_store::{
    audit::{self as store, Place},
    change_log,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Routes,
    reply::{self, HandlerResult},
};
use crate::{
    app::App,
    auth::{ReadAuditLog, Require},
    extract::{Cursor, Limit, Query},
    problem::ProblemResponse,
    wire::{List, mirror},
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add::<__path_list>(web::to(list));
}

mirror! {
    /// What was done.
    AuditAction = change_log::Action {
        Created, Updated, Deleted, Expired, Archived, Restored, Cancelled, Applied, Revoked, Erased,
    }
}

/// Who did something.
#[derive(Serialize, ToSchema)]
pub(crate) struct Actor {
    /// `user:<id>`, `token:<id>` or `system:<name>`.
    pub(super) id: String,
    /// A user's e-mail or a token's name, also when they are deleted; `null` once it is erased.
    #[schema(required)]
    pub(super) label: Option<String>,
}

/// One thing that was done. It names people and tokens by id alone; what is readable about them stands beside it and can
/// be erased.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    pub(super) id: Uuid,
    /// Highest first; entries of one revision were done together.
    pub(super) revision: i64,
    /// By the clock of the server that did it.
    #[schema(value_type = String, format = DateTime)]
    pub(super) at: Instant,
    pub(super) actor: Actor,
    #[schema(value_type = AuditAction)]
    pub(super) action: String,
    /// `user`, `flag`, `scheduled_change`, `override` or `api_token`.
    pub(super) entity: String,
    /// The id of what was changed; `null` for flags, which have names.
    #[schema(required)]
    pub(super) entity_id: Option<Uuid>,
    /// Of API tokens: the name; `null` once it is erased.
    #[schema(required)]
    pub(super) entity_label: Option<String>,
    #[schema(required)]
    pub(super) flag_name: Option<String>,
    /// The user it concerns.
    #[schema(required)]
    pub(super) user_id: Option<Uuid>,
    /// Their e-mail; `null` once it is erased.
    #[schema(required)]
    pub(super) user_label: Option<String>,
    /// The state before; `null` if there was none. Of users and tokens without e-mails and names.
    #[schema(required)]
    pub(super) before: Option<Value>,
    /// The state after; `null` if there is none. Of a user or token that was updated, `changed` says which fields.
    #[schema(required)]
    pub(super) after: Option<Value>,
    #[schema(required)]
    pub(super) reason: Option<String>,
    /// `X-Request-Id` of the request in which it was done.
    #[schema(required)]
    pub(super) request_id: Option<String>,
}

impl From<store::AuditEntry> for AuditEntry {
    fn from(entry: store::AuditEntry) -> Self {
        Self {
            id: entry.id,
            revision: entry.place.revision,
            at: entry.at,
            actor: Actor { id: entry.actor, label: entry.actor_label },
            action: entry.action,
            entity: entry.entity,
            entity_id: entry.entity_id,
            entity_label: entry.entity_label,
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

/// A query with the filters of the audit trail, and more.
macro_rules! audit_query {
    ($(#[$meta:meta])* $name:ident { $($more:tt)* }) => {
        $(#[$meta])*
        #[derive(serde::Deserialize, utoipa::IntoParams)]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        pub(crate) struct $name {
            /// Who did it: `user:<id>`, `token:<id>` or `system:<name>`.
            #[serde(default, deserialize_with = "crate::extract::short_text")]
            #[param(max_length = 255)]
            actor: Option<String>,
            #[serde(default, deserialize_with = "crate::extract::short_text")]
            #[param(max_length = 255)]
            flag_name: Option<String>,
            /// The user it concerns, also one who is deleted.
            user_id: Option<uuid::Uuid>,
            #[param(inline)]
            action: Option<super::audit::AuditAction>,
            /// Done at this instant or later.
            #[param(value_type = Option<String>, format = DateTime)]
            since: Option<flags_domain::Instant>,
            /// Done before this instant.
            #[param(value_type = Option<String>, format = DateTime)]
            until: Option<flags_domain::Instant>,
            $($more)*
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
    /// Which entries, and which part of the list.
    AuditQuery {
        /// Most items, 1 to 200; there are fewer where their states are very large.
        #[serde(default)]
        #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
        limit: Limit,
        /// `next_cursor` of the part before.
        #[param(value_type = Option<String>)]
        cursor: Option<Cursor<(i64, i32)>>,
    }
}

/// The audit log, newest first
#[utoipa::path(
    get, path = "/api/admin/audit-log", tag = "audit", operation_id = "list_audit_log", params(AuditQuery),
    responses((status = 200, body = List<AuditEntry>), (status = "default", response = ProblemResponse)),
)]
async fn list(_: Require<ReadAuditLog>, app: Data<App>, Query(query): Query<AuditQuery>) -> HandlerResult {
    let filter = query.filter();
    let after = query.cursor.map(|Cursor((revision, ord))| Place { revision, ord });
    let page = app.audit.list(&filter, after, query.limit.0).await?;
    let cursor = |last: &store::AuditEntry| Cursor((last.place.revision, last.place.ord)).encode();
    reply::json(&List::new(page, cursor, AuditEntry::from))
}

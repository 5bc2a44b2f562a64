//! Entries of the change log, which a transaction records before it commits.

use flags_domain::{Action, ResourceKind};
use serde_json::Value;
use uuid::Uuid;

/// Actor and request to which a change is attributed in the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// `user:<id>`, `token:<id>` or `system:<name>`.
    pub actor: String,
    /// Id of the HTTP request. `None` for changes made outside a request.
    pub request_id: Option<String>,
}

/// Change to be recorded in the change log.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeLogEntry {
    /// Kind of the change.
    pub action: Action,
    /// Kind of the changed resource.
    pub resource_kind: ResourceKind,
    /// Id of the changed resource. `None` for flags, which are identified by name.
    pub resource_id: Option<Uuid>,
    /// Name of the flag that the change belongs to.
    pub flag_name: Option<String>,
    /// Id of the user that the change affects.
    pub user_id: Option<Uuid>,
    /// State before the change; must not contain personal data. `None` if the resource did not exist.
    pub before: Option<Value>,
    /// State after the change; must not contain personal data. `None` if the resource no longer exists.
    pub after: Option<Value>,
    /// Reason given by the author of the change.
    pub reason: Option<String>,
}

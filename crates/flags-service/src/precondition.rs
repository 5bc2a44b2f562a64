//! Preconditions of conditional requests (RFC 9110, section 13).

use flags_domain::Revision;
use flags_store::{Tx, change_log};

use crate::error::{Result, ServiceError};

/// Condition that the current state of a resource must meet before a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// No condition.
    #[default]
    None,
    /// The resource must exist (`If-Match: *`).
    Exists,
    /// The resource must not exist (`If-None-Match: *`).
    Absent,
    /// The last change of the resource must have one of these revisions (`If-Match`).
    AnyOf(Vec<Revision>),
}

impl Precondition {
    /// Checks the condition. `revision` is the revision of the resource's last change, or `None` if the resource does
    /// not exist. The transaction must hold a lock on the resource.
    ///
    /// # Errors
    /// [`ServiceError::PreconditionFailed`] if the condition does not hold.
    pub(crate) async fn check(&self, tx: &mut Tx, revision: Option<i64>) -> Result<()> {
        let holds = match (self, revision) {
            (Self::None, _) | (Self::Exists, Some(_)) | (Self::Absent, None) => true,
            (Self::AnyOf(expected), Some(number)) => {
                let current = Revision { number, ..change_log::head(tx.conn()).await? };
                expected.contains(&current)
            }
            _ => false,
        };
        if holds { Ok(()) } else { Err(ServiceError::PreconditionFailed) }
    }
}

//! What a caller expects of the state it changes (RFC 9110, section 13).

use flags_store::{Tx, change_log, change_log::Revision};

use crate::error::{Result, ServiceError};

/// What must be true of a resource before it is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// It is there (`If-Match: *`).
    Exists,
    /// It is not there (`If-None-Match: *`).
    Absent,
    /// It is there, last changed at one of these revisions (`If-Match`).
    AnyOf(Vec<Revision>),
}

impl Precondition {
    /// Checks a resource that was last changed at `revision`, or is not there. The transaction must have claimed it.
    pub(crate) async fn check(&self, tx: &mut Tx, revision: Option<i64>) -> Result<()> {
        let holds = match (self, revision) {
            (Self::None, _) | (Self::Exists, Some(_)) | (Self::Absent, None) => true,
            (Self::AnyOf(expected), Some(number)) => {
                let present = Revision { number, ..change_log::head(tx.conn()).await? };
                expected.contains(&present)
            }
            _ => false,
        };
        if holds { Ok(()) } else { Err(ServiceError::PreconditionFailed) }
    }
}

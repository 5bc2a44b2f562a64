//! The change log (`change_log`, `log_head`), which serves as audit log, history and change feed.

mod entry;
mod read;
mod row;
mod write;

pub use flags_domain::{Action, ResourceKind, Revision};

pub use self::{
    entry::{Author, ChangeLogEntry},
    read::{ChangedCredentials, CredentialChanges, head, read_after, read_credential_changes, read_recent},
    row::{ChangeSummary, LoggedChange},
    write::{lock_head, purge},
};
pub(crate) use self::{
    read::{decode_head_column, missing_head},
    row::{ChangeLogRow, ChangeSummaryRow},
    write::{append, increment_head},
};

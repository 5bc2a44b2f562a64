//! Implementations of [`CommandOutput`]. If an output contains a record, the commit sets the
//! revision of the record.

use flags_store::{overrides::OverrideListItem, sessions::SessionRecord};
use uuid::Uuid;

use crate::{
    bulk::BulkResult,
    core::{CommandOutput, Progress},
    credentials::tokens::CreatedToken,
    flags::{FlagDetail, FlagItem},
    overrides::UpsertOutcome,
    schedules::ScheduledChangeDetail,
    users::UserDetail,
};

/// Implements [`CommandOutput`] for types whose field `record` is the changed record.
macro_rules! outputs_with_record {
    ($($output:ty),* $(,)?) => {
        $(impl CommandOutput for $output {
            fn set_revision(&mut self, revision: i64) {
                self.record.revision = revision;
            }
        })*
    };
}

/// Implements [`CommandOutput`] for types that contain no revision.
macro_rules! outputs_without_revision {
    ($($output:ty),* $(,)?) => {
        $(impl CommandOutput for $output {
            fn set_revision(&mut self, _: i64) {}
        })*
    };
}

outputs_with_record!(CreatedToken, FlagDetail, OverrideListItem, ScheduledChangeDetail, UserDetail);
outputs_without_revision!((), u64, Progress, SessionRecord, Uuid, Vec<Uuid>);

impl CommandOutput for FlagItem {
    fn set_revision(&mut self, revision: i64) {
        match self {
            Self::Readable(detail) => detail.record.revision = revision,
            Self::Unreadable(detail) => detail.record.revision = Some(revision),
        }
    }
}

impl CommandOutput for (UpsertOutcome, OverrideListItem) {
    fn set_revision(&mut self, revision: i64) {
        self.1.set_revision(revision);
    }
}

impl CommandOutput for BulkResult {
    fn set_revision(&mut self, revision: i64) {
        self.revisions.push(revision);
    }
}

//! Reading the audit log, the HTTP view of the change log.

use flags_store::{
    Page,
    audit::{self, AuditFilter, AuditPosition, AuditRange, AuditRecord},
};

use crate::{core::Core, error::Result};

/// Maximum number of entries per export batch.
const EXPORT_BATCH_SIZE: u32 = 1_000;

/// Reads the audit log.
#[derive(Clone)]
pub struct AuditService {
    core: Core,
}

impl AuditService {
    /// Creates a service that reads from the database of `core`.
    pub const fn new(core: Core) -> Self {
        Self { core }
    }

    /// Returns a page of entries, newest first. `after` is the position of the last entry of the previous page.
    pub async fn list(
        &self,
        filter: &AuditFilter,
        after: Option<AuditPosition>,
        limit: u32,
    ) -> Result<Page<AuditRecord>> {
        self.core.read(async |conn| audit::list(conn, filter, after, limit).await).await
    }

    /// Determines the range of the change log that an export with this filter reads.
    pub async fn find_range(&self, filter: &AuditFilter) -> Result<AuditRange> {
        self.core.read(async |conn| audit::find_range(conn, filter).await).await
    }

    /// Returns the next batch of an export, newest first, and whether more entries follow.
    ///
    /// Entries that are appended during the export are newer and therefore not part of it. No database connection is
    /// held between two batches.
    pub async fn read_export_batch(
        &self,
        range: &AuditRange,
        after: Option<AuditPosition>,
    ) -> Result<(Vec<AuditRecord>, bool)> {
        self.core.read(async |conn| audit::read_descending(conn, range, after, EXPORT_BATCH_SIZE).await).await
    }
}

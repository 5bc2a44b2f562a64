//! The audit trail: who did what, when, to what, and why.

use flags_store::{
    Page,
    audit::{self, AuditEntry, AuditFilter, Place, Scope},
};

use crate::{core::Core, error::Result};

/// Most entries that are read at once for an export.
const PORTION: u32 = 1_000;

/// Reads the audit trail.
#[derive(Clone)]
pub struct AuditService {
    core: Core,
}

impl AuditService {
    /// On this core.
    pub const fn new(core: Core) -> Self {
        Self { core }
    }

    /// A page of entries after `after`, newest first.
    pub async fn list(&self, filter: &AuditFilter, after: Option<Place>, limit: u32) -> Result<Page<AuditEntry>> {
        self.core.read(async |conn| audit::list(conn, filter, after, limit).await).await
    }

    /// Begins to read all entries that a filter lets through, however many.
    pub async fn scope(&self, filter: &AuditFilter) -> Result<Scope> {
        self.core.read(async |conn| audit::scope(conn, filter).await).await
    }

    /// The next of them after `after`, newest first, and whether there are more. What is appended meanwhile stands above, and
    /// no connection is held in between.
    pub async fn portion(&self, scope: &Scope, after: Option<Place>) -> Result<(Vec<AuditEntry>, bool)> {
        self.core.read(async |conn| audit::read_down(conn, scope, after, PORTION).await).await
    }
}

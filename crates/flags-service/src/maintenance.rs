//! What keeps the database tidy. Each duty is one round of small transactions; the loop is the worker's.
//!
//! Nothing here changes what anybody sees: an override is gone at its end because evaluation compares instants.

use flags_domain::Instant;
use flags_store::{Author, Tx, clock::database_time, overrides};

use crate::{
    core::{Command, Core},
    error::Result,
};

/// Most rows that one transaction removes: others should not wait long for it.
pub const BATCH: i64 = 1_000;

/// Most expired overrides that one transaction removes.
const EXPIRY_BATCH: i64 = 200;

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Expired overrides removed.
    pub overrides_expired: u64,
}

/// One round of every duty.
pub async fn run_round(core: &Core) -> Result<Round> {
    Ok(Round { overrides_expired: remove_expired_overrides(core).await? })
}

/// Removes all overrides whose end has passed by this process's clock and by the database's, and returns how many went.
/// Several workers at once share the work: each passes over what another holds.
pub async fn remove_expired_overrides(core: &Core) -> Result<u64> {
    let author = Author { actor: "system:cleanup-worker".to_owned(), request_id: None };
    let mut removed = 0;
    loop {
        let batch = core.execute(author.clone(), RemoveExpired).await?.output;
        removed += batch;
        if batch == 0 {
            return Ok(removed);
        }
    }
}

#[derive(Clone)]
struct RemoveExpired;

impl Command for RemoveExpired {
    type Output = u64;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<u64> {
        let due = database_time(tx.conn()).await?.map_or(tx.now(), |theirs: Instant| theirs.min(tx.now()));
        let batch = overrides::claim_expired(tx, due, EXPIRY_BATCH).await?;
        for gone in &batch {
            overrides::delete(tx, &gone.user_override).await?;
        }
        Ok(batch.len() as u64)
    }
}

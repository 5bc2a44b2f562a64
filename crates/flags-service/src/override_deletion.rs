//! Deletes all overrides of a user or flag that is being deleted.

use flags_store::{
    Tx,
    overrides::{self, OverrideOwner},
};

use crate::{core::Progress, error::Result};

/// Maximum number of overrides deleted per transaction, so that locks are held only briefly.
const BATCH_SIZE: i64 = 1_000;

/// Deletes the next batch of overrides of a user or flag, and records each deletion in the change
/// log.
///
/// The transaction must hold the exclusive lock of the user or flag.
pub(crate) async fn delete_overrides(tx: &mut Tx, owner: OverrideOwner<'_>) -> Result<Progress> {
    let batch = overrides::lock_batch(tx, owner, BATCH_SIZE).await?;
    for record in &batch.records {
        overrides::delete(tx, &record.user_override).await?;
    }
    Ok(if batch.is_last { Progress::Finished } else { Progress::Unfinished })
}

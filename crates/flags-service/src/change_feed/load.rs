//! Loading of the complete state from the database.

use std::collections::HashMap;

use flags_domain::{Revision, Snapshot};
use flags_store::{
    Store, StoreError, api_tokens,
    change_log::{self, ChangeSummary},
    flags, overrides, schedules, users,
};
use tokio::time::Instant;

use super::{
    DATABASE_TIMEOUT,
    decode::{metadata, unrevoked_tokens},
    with_database_timeout,
};
use crate::{
    credentials::signing::SigningKey,
    error::ServiceError,
    metrics,
    replica::{DatabaseKeys, ExternalUser, LoadedState, PastCommit, ShardKey},
    user_ids::user_id_namespace,
};

/// Maximum number of past change-log rows that a load reads. Streams can resume from positions that
/// these rows cover.
const RECENT_ROWS: i64 = 20_000;

/// Label from which the key of the user shards is derived. Do not change it: the order of shards
/// would change, and page cursors of searches would skip or repeat overrides.
const SHARD_KEY_PURPOSE: &str = "shards of users with overrides";

/// Loads the complete state at one revision, and the secret keys of the database that all servers
/// share.
pub async fn load(store: &Store) -> Result<LoadedState, ServiceError> {
    // Read again for each load, because a restored database may contain a different key.
    let secret = SigningKey::for_event_streams(store).await?.derive_key(SHARD_KEY_PURPOSE);
    let keys = DatabaseKeys { shards: ShardKey::new(&secret), user_ids: user_id_namespace(store).await? };
    load_state(store, keys).await
}

/// Loads the complete state at one revision. Each query has a timeout of 10 seconds. The total time
/// has no limit, because it depends on the number of overrides.
async fn load_state(store: &Store, keys: DatabaseKeys) -> Result<LoadedState, ServiceError> {
    let started_at = Instant::now();
    let mut conn = with_database_timeout(store.snapshot()).await?;
    let revision = with_database_timeout(change_log::head(&mut conn)).await?;
    let mut schedules_by_flag: HashMap<_, Vec<_>> = HashMap::new();
    for stored in with_database_timeout(schedules::load_all(&mut conn)).await? {
        let flag_name = stored.flag_name().clone();
        schedules_by_flag.entry(flag_name).or_default().push(stored.into_definition());
    }
    let flags = with_database_timeout(flags::load_all(&mut conn)).await?.into_iter().map(|stored| {
        let schedule = schedules_by_flag.remove(stored.name()).unwrap_or_default();
        (stored.into_definition(), schedule)
    });
    let flags: Vec<_> = flags.collect();
    // Regular expressions take long to compile. A blocking thread compiles them, because this task
    // must apply changes of credentials in the meantime.
    let compilation = tokio::task::spawn_blocking(move || Snapshot::from_definitions(flags));
    let snapshot = compilation.await.map_err(|error| ServiceError::Internal(error.to_string()))?;
    let tokens = unrevoked_tokens(with_database_timeout(api_tokens::load_all(&mut conn)).await?);
    let recent = match with_database_timeout(change_log::read_recent(&mut conn, RECENT_ROWS)).await {
        // Recent changes are optional: without them, resuming streams start with a full snapshot.
        Err(StoreError::Corrupt(_)) => Vec::new(),
        result => result?,
    };
    let mut loaded = LoadedState::new(revision, snapshot, tokens, past_commits(recent, revision), keys);
    users::for_each_external_id(&mut conn, DATABASE_TIMEOUT, |id, external_id| {
        loaded.add_external_users([ExternalUser { id, external_id }]);
    })
    .await?;
    let mut override_count = 0_u64;
    overrides::for_each(&mut conn, DATABASE_TIMEOUT, |result| match result {
        Ok(user_override) => {
            loaded.add(&user_override);
            override_count += 1;
        }
        Err(error) => tracing::error!(%error, "override cannot be read and is ignored"),
    })
    .await?;
    let elapsed = started_at.elapsed();
    tracing::info!(%revision, overrides = override_count, seconds = elapsed.as_secs_f64(), "replica loaded");
    metrics::record_load(elapsed);
    Ok(loaded)
}

/// Groups the newest rows of the change log by commit. Returns an empty list if the rows do not
/// cover every revision up to `head`.
fn past_commits(rows: Vec<ChangeSummary>, head: Revision) -> Vec<PastCommit> {
    let is_dense = rows.last().is_none_or(|last| last.revision == head.number)
        && rows.windows(2).all(|pair| pair[1].revision - pair[0].revision <= 1);
    if !is_dense {
        return Vec::new();
    }
    let commits = rows.chunk_by(|a, b| a.revision == b.revision);
    commits
        .map(|rows| PastCommit { revision: rows[0].revision, changes: rows.iter().map(metadata).collect() })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use uuid::Uuid;

    use super::*;
    use crate::replica::Replica;

    /// Opens the database in a directory as a new server process does, and returns the shards of
    /// 100 users.
    async fn shards(directory: &Path) -> Vec<usize> {
        let url = format!("sqlite://{}", directory.join("flags.db").display());
        let store = Store::open(&url.parse().unwrap()).await.unwrap();
        store.migrate().await.unwrap();
        let replica = Replica::new(load(&store).await.unwrap());
        let view = replica.read();
        (0..100).map(|user| view.shard_of(Uuid::from_u128(user))).collect()
    }

    #[tokio::test]
    async fn shards_depend_on_the_database_and_not_on_the_server() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let expected = shards(first.path()).await;
        assert_eq!(shards(first.path()).await, expected);
        assert_ne!(shards(second.path()).await, expected);
    }
}

//! Idempotency keys (`idempotency_keys`). A retried request with the same key receives the stored
//! response of the first request.
//!
//! Writes in this module are not recorded in the change log.

use diesel::{BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use flags_domain::Instant;
use uuid::Uuid;

use crate::{
    backend,
    conn::{Backend, dispatch},
    decoded::Decoded,
    error::Result,
    schema::idempotency_keys,
    sql_types::DbInstant,
    store::Store,
    transaction::Tx,
};

/// Retention time of idempotency keys in microseconds: 24 hours.
pub const RETENTION_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

/// Idempotency key of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Actor that sent the request. Keys of different actors are independent.
    pub caller: String,
    /// Value of the `Idempotency-Key` header, at most 255 characters.
    pub key: String,
    /// SHA-256 of the request. Detects reuse of the key for a different request.
    pub fingerprint: [u8; 32],
}

impl IdempotencyKey {
    /// Derives the key for one batch of a bulk request. Batches are numbered from 0.
    #[must_use]
    pub fn for_batch(&self, number: usize) -> Self {
        // Actor names do not contain `#`, so derived keys cannot collide with keys of requests.
        Self { caller: format!("{}#{number}", self.caller), ..self.clone() }
    }
}

/// Response stored under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// Response, in an encoding chosen by the code that stored it.
    pub payload: Vec<u8>,
    /// Head revision when the response was stored.
    pub revision: i64,
}

/// State of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// The key was unused. This transaction has reserved it.
    New,
    /// The same request has already been executed, with this response.
    Completed(StoredResponse),
    /// The key was used for a different request.
    Mismatch,
}

const TABLE: &str = "idempotency_keys";

/// Reserves a key for this transaction. Blocks while another transaction has reserved the same key.
pub async fn reserve(tx: &mut Tx, key: &IdempotencyKey) -> Result<KeyState> {
    use idempotency_keys::dsl;
    let cutoff = DbInstant(tx.now().plus_micros(-RETENTION_MICROS));
    dispatch!(tx.conn(), |c| {
        let row = dsl::idempotency_keys.filter(dsl::caller.eq(&key.caller).and(dsl::key.eq(&key.key)));
        diesel::delete(row.filter(dsl::created_at.le(cutoff))).execute(c).await
    })?;
    let row = (
        dsl::caller.eq(&key.caller),
        dsl::key.eq(&key.key),
        dsl::fingerprint.eq(&key.fingerprint[..]),
        dsl::answer.eq(&[][..]),
        dsl::revision.eq(0),
        dsl::created_at.eq(DbInstant(tx.now())),
    );
    let inserted = dispatch!(tx.conn(), |c| {
        diesel::insert_into(dsl::idempotency_keys).values(row).on_conflict_do_nothing().execute(c).await
    })?;
    tx.refresh_now();
    if inserted == 1 {
        return Ok(KeyState::New);
    }
    match find(tx, key).await? {
        KeyState::New => {
            Err(crate::StoreError::TransactionConflict("the idempotency key was removed concurrently".to_owned()))
        }
        found => Ok(found),
    }
}

/// Returns the state of a key without reserving it.
pub async fn find(tx: &mut Tx, key: &IdempotencyKey) -> Result<KeyState> {
    use idempotency_keys::dsl;
    type Columns = (Decoded<Vec<u8>>, Decoded<Vec<u8>>, Decoded<i64>);
    let cutoff = DbInstant(tx.now().plus_micros(-RETENTION_MICROS));
    let found: Option<Columns> = dispatch!(tx.conn(), |c| {
        let row = dsl::idempotency_keys.find((&key.caller, &key.key)).filter(dsl::created_at.gt(cutoff));
        row.select((dsl::fingerprint, dsl::answer, dsl::revision)).first(c).await.optional()
    })?;
    let Some((fingerprint, payload, revision)) = found else { return Ok(KeyState::New) };
    if fingerprint.into_result(TABLE)? != key.fingerprint {
        return Ok(KeyState::Mismatch);
    }
    let response = StoredResponse { payload: payload.into_result(TABLE)?, revision: revision.into_result(TABLE)? };
    Ok(KeyState::Completed(response))
}

/// Stores the response under a key that the transaction has reserved. Replaces a response that was stored before.
pub(crate) async fn store_response(tx: &mut Tx, key: &IdempotencyKey, response: &StoredResponse) -> Result<()> {
    use idempotency_keys::dsl;
    dispatch!(tx.conn(), |c| {
        diesel::update(dsl::idempotency_keys.find((&key.caller, &key.key)))
            .set((dsl::answer.eq(&response.payload), dsl::revision.eq(response.revision)))
            .execute(c)
            .await
    })?;
    Ok(())
}

/// Removes the keys whose stored response contains the user's id, because such a response may contain personal data.
///
/// A later retry under a removed key is executed as a new request.
pub async fn delete_mentioning_user(tx: &mut Tx, id: Uuid) -> Result<()> {
    let text = id.to_string();
    match &mut tx.conn().0 {
        Backend::Postgres(object) => backend::postgres::delete_responses_containing(object, &text).await?,
        Backend::Sqlite(object) => backend::sqlite::delete_responses_containing(object, &text).await?,
    }
    Ok(())
}

/// Removes up to `limit` keys that were reserved at or before `until`. Returns the number of removed keys.
pub async fn purge(store: &Store, until: Instant, limit: i64) -> Result<u64> {
    use idempotency_keys::dsl;
    let _permit = store.write_permit().await?;
    let mut conn = store.conn().await?;
    let expired: Vec<(Decoded<String>, Decoded<String>)> = dispatch!(conn, |c| {
        let rows =
            dsl::idempotency_keys.filter(dsl::created_at.le(DbInstant(until))).order(dsl::created_at).limit(limit);
        rows.select((dsl::caller, dsl::key)).load(c).await
    })?;
    let mut removed = 0;
    let expired =
        expired.into_iter().filter_map(|(caller, key)| Some((caller.or_logged(TABLE)?, key.or_logged(TABLE)?)));
    for (caller, key) in expired {
        removed += dispatch!(conn, |c| {
            let row = dsl::idempotency_keys.find((&caller, &key)).filter(dsl::created_at.le(DbInstant(until)));
            diesel::delete(row).execute(c).await
        })? as u64;
    }
    Ok(removed)
}

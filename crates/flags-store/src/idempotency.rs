//! Requests carried out under a key of the caller's choice: a retry finds the answer of the first.
//!
//! Book-keeping beside the log: claiming or purging a key takes no revision.

use diesel::{BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use flags_domain::Instant;
use uuid::Uuid;

use crate::{
    backend,
    commit::Tx,
    error::Result,
    schema::idempotency_keys,
    sql_types::DbInstant,
    store::{Backend, Store, on},
};

/// How long a key is kept, in microseconds: 24 hours.
pub const KEPT_FOR: i64 = 24 * 60 * 60 * 1_000_000;

/// A caller's name for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Whose key it is: an actor of the log.
    pub caller: String,
    /// The key, at most 255 characters.
    pub key: String,
    /// SHA-256 of the request that it stands for.
    pub fingerprint: [u8; 32],
}

impl IdempotencyKey {
    /// A key for one part of what this one stands for.
    #[must_use]
    pub fn part(&self, number: usize) -> Self {
        // No actor of the log has this sign in it.
        Self { caller: format!("{}#{number}", self.caller), ..self.clone() }
    }
}

/// What the first request with a key got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// The answer, in the words of whoever gave it.
    pub answer: Vec<u8>,
    /// The revision it speaks of.
    pub revision: i64,
}

/// Whether a key is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is, and this transaction holds it.
    Free,
    /// The same request was carried out.
    Answered(StoredResponse),
    /// Another request was.
    Taken,
}

/// Claims a key for this transaction. Waits for another transaction that holds it.
pub async fn claim(tx: &mut Tx, key: &IdempotencyKey) -> Result<Claim> {
    use idempotency_keys::dsl;
    let cutoff = DbInstant(tx.now().plus_micros(-KEPT_FOR));
    on!(tx.conn(), |c| {
        let old = dsl::idempotency_keys.filter(dsl::caller.eq(&key.caller).and(dsl::key.eq(&key.key)));
        diesel::delete(old.filter(dsl::created_at.le(cutoff))).execute(c).await
    })?;
    let row = (
        dsl::caller.eq(&key.caller),
        dsl::key.eq(&key.key),
        dsl::fingerprint.eq(&key.fingerprint[..]),
        dsl::answer.eq(&[][..]),
        dsl::revision.eq(0),
        dsl::created_at.eq(DbInstant(tx.now())),
    );
    let inserted = on!(tx.conn(), |c| {
        diesel::insert_into(dsl::idempotency_keys).values(row).on_conflict_do_nothing().execute(c).await
    })?;
    tx.refresh_now();
    if inserted == 1 {
        return Ok(Claim::Free);
    }
    let found: Option<(Vec<u8>, Vec<u8>, i64)> = on!(tx.conn(), |c| {
        let found = dsl::idempotency_keys.find((&key.caller, &key.key));
        found.select((dsl::fingerprint, dsl::answer, dsl::revision)).first(c).await.optional()
    })?;
    Ok(match found {
        Some((fingerprint, answer, revision)) if fingerprint == key.fingerprint => {
            Claim::Answered(StoredResponse { answer, revision })
        }
        Some(_) => Claim::Taken,
        None => return Err(crate::StoreError::Collision("a key went while it was looked for".to_owned())),
    })
}

/// Keeps the answer with a key that the transaction has claimed, or that was kept before.
pub(crate) async fn keep(tx: &mut Tx, key: &IdempotencyKey, kept: &StoredResponse) -> Result<()> {
    use idempotency_keys::dsl;
    on!(tx.conn(), |c| {
        diesel::update(dsl::idempotency_keys.find((&key.caller, &key.key)))
            .set((dsl::answer.eq(&kept.answer), dsl::revision.eq(kept.revision)))
            .execute(c)
            .await
    })?;
    Ok(())
}

/// Removes the keys whose answers name a user, since such an answer may hold their e-mail or name.
///
/// A request that made something of theirs and is sent again under such a key is a new one.
pub async fn forget_user(tx: &mut Tx, id: Uuid) -> Result<()> {
    let text = id.to_string();
    match &mut tx.conn().0 {
        Backend::Postgres(object) => backend::postgres::remove_answers_with(object, &text).await?,
        Backend::Sqlite(object) => backend::sqlite::remove_answers_with(object, &text).await?,
    }
    Ok(())
}

/// Removes up to `limit` keys that were claimed at or before `until`, and returns how many went.
pub async fn purge(store: &Store, until: Instant, limit: i64) -> Result<u64> {
    use idempotency_keys::dsl;
    let _writer = store.writer().await?;
    let mut conn = store.conn().await?;
    let old: Vec<(String, String)> = on!(conn, |c| {
        let old =
            dsl::idempotency_keys.filter(dsl::created_at.le(DbInstant(until))).order(dsl::created_at).limit(limit);
        old.select((dsl::caller, dsl::key)).load(c).await
    })?;
    let mut removed = 0;
    for (caller, key) in old {
        removed += on!(conn, |c| {
            let row = dsl::idempotency_keys.find((&caller, &key)).filter(dsl::created_at.le(DbInstant(until)));
            diesel::delete(row).execute(c).await
        })? as u64;
    }
    Ok(removed)
}

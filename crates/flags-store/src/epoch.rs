//! Epochs of the change log. A new epoch starts whenever revision numbers may be reused.

use diesel::{ExpressionMethods, OptionalExtension as _, QueryDsl};
use diesel_async::RunQueryDsl;
use flags_domain::Revision;
use uuid::Uuid;

use crate::{
    backend,
    change_log::{decode_head_column, missing_head},
    conn::{Backend, dispatch},
    decoded::Decoded,
    error::Result,
    schema::log_head,
    sql_types::DbUuid,
    store::Store,
};

impl Store {
    /// Starts a new epoch. Needed after a backup was restored, because revision numbers are then reused.
    ///
    /// Running servers reload their replicas.
    pub async fn start_new_epoch(&self) -> Result<Revision> {
        let _permit = self.write_permit().await?;
        let epoch = DbUuid(Uuid::now_v7());
        let number: Option<Decoded<i64>> = dispatch!(self.conn().await?, |c| {
            let head = diesel::update(log_head::table).set(log_head::epoch.eq(epoch));
            head.returning(log_head::revision).get_result(c).await.optional()
        })?;
        let number = decode_head_column(number.ok_or_else(missing_head)?)?;
        Ok(Revision { epoch: epoch.0, number })
    }

    /// Starts a new epoch if the current one is still `expected`. Returns whether it did.
    ///
    /// When several servers notice a restored backup, only the first starts a new epoch.
    pub async fn start_new_epoch_if_current(&self, expected: Uuid) -> Result<bool> {
        let updated = dispatch!(self.feed_conn().await?, |c| {
            let head = diesel::update(log_head::table.filter(log_head::epoch.eq(DbUuid(expected))));
            head.set(log_head::epoch.eq(DbUuid(Uuid::now_v7()))).execute(c).await
        })?;
        Ok(updated == 1)
    }

    /// Records the identity of the current database in `log_head`, and starts a new epoch if it
    /// differs from the recorded one. Returns whether it started a new epoch.
    ///
    /// The identity consists of the ids of the PostgreSQL cluster and its timeline. It changes when
    /// a backup is restored, and after a failover, which may lose commits. On SQLite, this function
    /// does nothing.
    ///
    /// A dump that is restored into the same cluster is not detected. In that case, call
    /// [`start_new_epoch`](Self::start_new_epoch).
    pub async fn record_database_identity(&self) -> Result<bool> {
        let mut conn = self.feed_conn().await?;
        let current = match &mut conn.0 {
            Backend::Postgres(object) => backend::postgres::database_identity(object).await?,
            Backend::Sqlite(_) => None,
        };
        let Some(current) = current else { return Ok(false) };
        let row: Option<(Decoded<DbUuid>, Option<String>)> = dispatch!(conn, |c| {
            log_head::table.select((log_head::epoch, log_head::lineage)).first(c).await.optional()
        })?;
        let (epoch, recorded) = row.ok_or_else(missing_head)?;
        let epoch = decode_head_column(epoch)?;
        if recorded.as_ref() == Some(&current) {
            return Ok(false);
        }
        // If no identity is recorded yet, record it without starting a new epoch.
        let next_epoch = if recorded.is_none() { epoch } else { DbUuid(Uuid::now_v7()) };
        let updated = dispatch!(conn, |c| {
            let head = diesel::update(log_head::table.filter(log_head::epoch.eq(epoch)));
            head.set((log_head::epoch.eq(next_epoch), log_head::lineage.eq(&current))).execute(c).await
        })?;
        Ok(updated == 1 && recorded.is_some())
    }
}

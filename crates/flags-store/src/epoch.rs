//! Epochs of the log: a new one begins whenever revisions may be used again.

use diesel::{ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::{
    backend,
    change_log::Revision,
    error::Result,
    schema::log_head,
    sql_types::DbUuid,
    store::{Backend, Store, on},
};

impl Store {
    /// Begins a new epoch, as the numbers after a restored backup are used again. Running servers load everything anew.
    pub async fn new_epoch(&self) -> Result<Revision> {
        let _writer = self.writer().await?;
        let epoch = DbUuid(Uuid::now_v7());
        let number: i64 = on!(self.conn().await?, |c| {
            let head = diesel::update(log_head::table).set(log_head::epoch.eq(epoch));
            head.returning(log_head::revision).get_result(c).await
        })?;
        Ok(Revision { epoch: epoch.0, number })
    }

    /// Begins a new epoch unless another server has ended `seen` already: of several that notice a restored backup one
    /// acts. Returns whether this one did.
    pub async fn begin_epoch_after(&self, seen: Uuid) -> Result<bool> {
        let begun = on!(self.feed_conn().await?, |c| {
            let head = diesel::update(log_head::table.filter(log_head::epoch.eq(DbUuid(seen))));
            head.set(log_head::epoch.eq(DbUuid(Uuid::now_v7()))).execute(c).await
        })?;
        Ok(begun == 1)
    }

    /// Begins a new epoch if the log was written by another database than it stands in now: another cluster of PostgreSQL or
    /// another timeline, which means a restored backup, or a failover that may have lost commits. Returns whether it did.
    /// (A dump that is restored into the same cluster cannot be told; see [`new_epoch`](Self::new_epoch).)
    pub async fn adopt_lineage(&self) -> Result<bool> {
        let mut conn = self.feed_conn().await?;
        let present = match &mut conn.0 {
            Backend::Postgres(object) => backend::postgres::lineage(object).await?,
            Backend::Sqlite(_) => None,
        };
        let Some(present) = present else { return Ok(false) };
        let (epoch, written): (DbUuid, Option<String>) =
            on!(conn, |c| log_head::table.select((log_head::epoch, log_head::lineage)).first(c).await)?;
        if written.as_ref() == Some(&present) {
            return Ok(false);
        }
        // The first to write under a lineage notes it; from then on another one ends the epoch.
        let next = if written.is_none() { epoch } else { DbUuid(Uuid::now_v7()) };
        let adopted = on!(conn, |c| {
            let head = diesel::update(log_head::table.filter(log_head::epoch.eq(epoch)));
            head.set((log_head::epoch.eq(next), log_head::lineage.eq(&present))).execute(c).await
        })?;
        Ok(adopted == 1 && written.is_some())
    }
}

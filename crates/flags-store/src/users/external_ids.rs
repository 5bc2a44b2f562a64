//! External ids of users, for the replica.

use std::time::Duration;

use diesel::{ExpressionMethods, NullableExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::TABLE;
use crate::{
    conn::{Conn, dispatch},
    decoded::Decoded,
    error::Result,
    schema::users,
    sql_types::DbUuid,
    store::with_timeout,
};

/// Number of external ids that [`for_each_external_id`] reads per query.
const EXTERNAL_ID_BATCH: i64 = 10_000;

/// Calls `callback` with the id and the external id of every user that has one. `step_timeout` limits each query, not
/// the total time. Skips rows that cannot be read.
pub async fn for_each_external_id(
    conn: &mut Conn,
    step_timeout: Duration,
    mut callback: impl FnMut(Uuid, String),
) -> Result<()> {
    let mut after = String::new();
    loop {
        let rows = with_timeout(step_timeout, load_external_ids(conn, &after)).await?;
        let is_last = (rows.len() as i64) < EXTERNAL_ID_BATCH;
        let mut last = None;
        for (id, external_id) in rows.into_iter().filter_map(|row| row.or_logged(TABLE)) {
            callback(id.0, external_id.clone());
            last = Some(external_id);
        }
        match last {
            Some(external_id) if !is_last => after = external_id,
            _ => return Ok(()),
        }
    }
}

async fn load_external_ids(conn: &mut Conn, after: &str) -> Result<Vec<Decoded<(DbUuid, String)>>> {
    dispatch!(conn, |c| {
        users::table
            .filter(users::external_id.gt(after))
            .order(users::external_id)
            .limit(EXTERNAL_ID_BATCH)
            .select((users::id, users::external_id.assume_not_null()))
            .load(c)
            .await
    })
}

/// Returns the external ids of the users with the given ids. Omits unknown ids, users without an external id, and
/// external ids that cannot be read.
pub async fn find_external_ids(conn: &mut Conn, ids: &[Uuid]) -> Result<Vec<(Uuid, String)>> {
    let ids: Vec<_> = ids.iter().copied().map(DbUuid).collect();
    let rows: Vec<Decoded<(DbUuid, String)>> = dispatch!(conn, |c| {
        users::table
            .filter(users::id.eq_any(&ids))
            .filter(users::external_id.is_not_null())
            .select((users::id, users::external_id.assume_not_null()))
            .load(c)
            .await
    })?;
    let readable = rows.into_iter().filter_map(|row| row.or_logged(TABLE));
    Ok(readable.map(|(id, external_id)| (id.0, external_id)).collect())
}

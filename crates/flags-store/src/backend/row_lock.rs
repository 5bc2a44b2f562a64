//! Queries that lock the rows they return until the end of the transaction.

use diesel::{
    QueryResult,
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sqlite::Sqlite,
};

/// Lock on the rows that a query returns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowLock {
    /// Other transactions cannot change or delete the rows. For transactions that insert rows that refer to them.
    Share,
    /// Other transactions cannot lock, change or delete the rows. For transactions that change or delete them.
    Update,
    /// Like [`Update`](Self::Update), but omits rows that another transaction has locked instead of waiting for it.
    UpdateSkipLocked,
}

/// Query that locks the rows it returns. After waiting for a lock, it returns the row as the other
/// transaction has left it.
///
/// On SQLite, the query takes no row locks, because a write transaction holds the write lock of the
/// whole file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Locked<Q> {
    query: Q,
    lock: RowLock,
}

impl<Q> Locked<Q> {
    pub(crate) const fn new(query: Q, lock: RowLock) -> Self {
        Self { query, lock }
    }
}

impl<Q: Query> Query for Locked<Q> {
    type SqlType = Q::SqlType;
}

/// The SQL text depends on the value of `lock`, so statements cannot be cached by type.
impl<Q> QueryId for Locked<Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for Locked<Q> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.query.walk_ast(out.reborrow())?;
        out.push_sql(match self.lock {
            RowLock::Share => " FOR SHARE",
            RowLock::Update => " FOR UPDATE",
            RowLock::UpdateSkipLocked => " FOR UPDATE SKIP LOCKED",
        });
        Ok(())
    }
}

impl<Q: QueryFragment<Sqlite>> QueryFragment<Sqlite> for Locked<Q> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        self.query.walk_ast(out)
    }
}

//! The search index for users: trigrams on PostgreSQL, full-text search on SQLite.

use diesel::{
    QueryResult, QueryableByName,
    expression::{AppearsOnTable, Expression, ValidGrouping, is_aggregate},
    pg::Pg,
    query_builder::{AstPass, QueryFragment, QueryId},
    sql_query,
    sql_types::{Array, Bool, Double, Text},
    sqlite::Sqlite,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::sqlite::AsyncSqliteConnection;
use crate::{page::BoundedCount, schema::users};

/// SQL condition on users that uses the search index. PostgreSQL uses `trigrams`; SQLite uses
/// `phrase`.
#[derive(Clone, Debug)]
pub(crate) struct SearchIndexCondition {
    /// Trigrams for PostgreSQL's trigram index.
    pub(crate) trigrams: Vec<String>,
    /// Phrase for SQLite's full-text index.
    pub(crate) phrase: String,
    /// `LIKE` pattern for `users.search_text`.
    pub(crate) pattern: String,
    /// Whether the match must come after the handle, which is the first line of the search text.
    pub(crate) is_name_only: bool,
}

impl QueryId for SearchIndexCondition {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Expression for SearchIndexCondition {
    type SqlType = Bool;
}

impl ValidGrouping<()> for SearchIndexCondition {
    type IsAggregate = is_aggregate::Never;
}

impl AppearsOnTable<users::table> for SearchIndexCondition {}

impl QueryFragment<Pg> for SearchIndexCondition {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // The best plan depends on how frequent the trigrams are, so the query must be planned for each value.
        out.unsafe_to_cache_prepared();
        out.push_sql("(text_trigrams(users.search_text) @> ");
        out.push_bind_param::<Array<Text>, _>(&self.trigrams)?;
        out.push_sql(" AND users.search_text LIKE ");
        out.push_bind_param::<Text, _>(&self.pattern)?;
        out.push_sql(r" ESCAPE '\')");
        Ok(())
    }
}

impl QueryFragment<Sqlite> for SearchIndexCondition {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("(users.search_doc IN (SELECT rowid FROM users_search WHERE users_search MATCH ");
        out.push_bind_param::<Text, _>(&self.phrase)?;
        out.push_sql(")");
        // The full-text index matches phrases exactly, so a `LIKE` check of each text is not
        // needed. It would take most of the query's time.
        if self.is_name_only {
            out.push_sql(" AND users.search_text LIKE ");
            out.push_bind_param::<Text, _>(&self.pattern)?;
            out.push_sql(r" ESCAPE '\'");
        }
        out.push_sql(")");
        Ok(())
    }
}

/// Estimates the fraction of users, from 0 to 1, whose search text matches the `LIKE` pattern. Samples about 1,000
/// rows.
pub(crate) async fn estimate_match_fraction(conn: &mut AsyncPgConnection, pattern: &str) -> QueryResult<f64> {
    let query = sql_query(
        r"SELECT count(*) FILTER (WHERE search_text LIKE $1 ESCAPE '\')::float8 / greatest(count(*), 1) AS fraction
          FROM users TABLESAMPLE SYSTEM (
              (SELECT least(100, 100000 / greatest(reltuples, 1)) FROM pg_class WHERE oid = 'users'::regclass)
          )",
    );
    let row: MatchFractionRow = query.bind::<Text, _>(pattern).get_result(conn).await?;
    Ok(row.fraction)
}

#[derive(QueryableByName)]
struct MatchFractionRow {
    #[diesel(sql_type = Double)]
    fraction: f64,
}

/// Returns every second trigram of `text`, and the last one. These trigrams cover all characters.
/// The others would cost more index reads than they would save in candidate rows.
pub(crate) fn covering_trigrams(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let last_start = characters.len().saturating_sub(3);
    let starts = (0..last_start).step_by(2).chain([last_start]);
    starts.map(|start| characters.iter().skip(start).take(3).collect()).collect()
}

/// Quotes `text` as an FTS5 phrase, so that no character has a special meaning.
pub(crate) fn quote_phrase(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// Query for the row ids that the full-text index (`users_search`) returns for a phrase.
#[derive(Clone, Debug, QueryId)]
pub(crate) struct FullTextQuery {
    /// Phrase in FTS5 syntax.
    pub(crate) phrase: String,
}

impl QueryFragment<Sqlite> for FullTextQuery {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("SELECT rowid FROM users_search WHERE users_search MATCH ");
        out.push_bind_param::<Text, _>(&self.phrase)
    }
}

/// Counts the users that the full-text query finds, up to [`MAX_TOTAL`](crate::page::MAX_TOTAL) + 1.
pub(crate) async fn count_matches(conn: &mut AsyncSqliteConnection, query: FullTextQuery) -> QueryResult<i64> {
    BoundedCount(query).get_result(conn).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covering_trigrams_are_every_second_trigram_and_the_last() {
        assert_eq!(covering_trigrams("abc"), ["abc"]);
        assert_eq!(covering_trigrams("abcd"), ["abc", "bcd"]);
        assert_eq!(covering_trigrams("abcdef"), ["abc", "cde", "def"]);
        assert_eq!(covering_trigrams("müßig@"), ["müß", "ßig", "ig@"]);
    }
}

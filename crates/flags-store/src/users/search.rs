//! What a search for users looks for.
//!
//! Parts of three characters or more are in an index made for them, one or two characters at the beginning of e-mail or name
//! are ranges of ordinary indexes.

use diesel::{
    expression::{AppearsOnTable, Expression, ValidGrouping, is_aggregate},
    query_builder::QueryId,
    sql_types::Bool,
};

use crate::{
    backend::{self, sqlite::Found},
    page::{containing, escape},
    schema::users,
};

/// What is looked for.
pub(super) enum Sought {
    /// E-mail or name begin with these one or two characters.
    Beginning(Beginning),
    /// E-mail or name contain these three characters or more.
    Part(Part),
}

impl Sought {
    /// Reads a text in lower case. `None` if it is empty, which is a part of everything.
    pub(super) fn new(text: &str) -> Option<Self> {
        match text.chars().count() {
            0 => None,
            1 | 2 => Some(Self::Beginning(Beginning::new(text))),
            _ => Some(Self::Part(Part::new(text))),
        }
    }
}

/// The texts that begin with what is looked for: from one on, and before another, byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beginning {
    pub(super) from: String,
    pub(super) to: String,
}

impl Beginning {
    fn new(text: &str) -> Self {
        let mut to = text.to_owned();
        // UTF-8 sorts as its characters do: what comes next has the next character at its end.
        while let Some(last) = to.pop() {
            if let Some(next) = (last..=char::MAX).nth(1) {
                to.push(next);
                return Self { from: text.to_owned(), to };
            }
        }
        // Nothing comes next where all characters are the last there is. No e-mail has as many of it.
        Self { from: text.to_owned(), to: char::MAX.to_string().repeat(1_000) }
    }
}

/// A part of e-mail or name.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// For `LIKE`, on `search_text`.
    pub(super) pattern: String,
    indexed: Indexed,
}

impl Part {
    fn new(text: &str) -> Self {
        // E-mail and name stand with a line feed between them, and only the name can have one.
        let within_name = text.contains('\n');
        let pattern = if within_name { format!("%\n%{}%", escape(text)) } else { containing(text) };
        let indexed = Indexed {
            trigrams: backend::postgres::trigrams(text),
            phrase: backend::sqlite::phrase(text),
            pattern: pattern.clone(),
            within_name,
        };
        Self { pattern, indexed }
    }

    /// What SQLite's search index finds, if all of it has this part. It is counted without a look at the users.
    pub(super) fn found_by_phrase(&self) -> Option<Found> {
        (!self.indexed.within_name).then(|| Found { phrase: self.indexed.phrase.clone() })
    }

    /// The condition that a user has this part, which the search index answers.
    pub(super) fn indexed(&self) -> Indexed {
        self.indexed.clone()
    }
}

/// See [`Part::indexed`]. What becomes of it stands with each database.
#[derive(Clone, Debug)]
pub(crate) struct Indexed {
    pub(crate) trigrams: Vec<String>,
    pub(crate) phrase: String,
    pub(crate) pattern: String,
    /// Whether it must be within the name, and not reach into it from the e-mail.
    pub(crate) within_name: bool,
}

impl QueryId for Indexed {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Expression for Indexed {
    type SqlType = Bool;
}

impl ValidGrouping<()> for Indexed {
    type IsAggregate = is_aggregate::Never;
}

impl AppearsOnTable<users::table> for Indexed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_end_before_the_next_text() {
        let range = |text| {
            let Beginning { from, to } = Beginning::new(text);
            assert!(from < to && format!("{from}\u{10ffff}\u{10ffff}") < to, "{text:?}");
            to
        };
        assert_eq!(range("jo"), "jp");
        assert_eq!(range("é"), "ê");
        assert_eq!(range("\u{d7ff}"), "\u{e000}", "there are no characters between");
        assert_eq!(range("a\u{10ffff}"), "b");
        range("\u{10ffff}");
    }
}

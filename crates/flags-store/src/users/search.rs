//! What a search for users looks for.
//!
//! Parts of three characters or more are in an index made for them, one or two characters at the beginning of e-mail or name
//! are ranges of ordinary indexes.

use std::{collections::HashMap, ops::Range, sync::LazyLock};

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
pub(super) enum SearchTerm {
    /// E-mail or name begin with these one or two characters.
    Prefix(Prefix),
    /// E-mail or name contain these three characters or more.
    Substring(Substring),
}

impl SearchTerm {
    /// Reads a text in lower case. `None` if it is empty, which is a part of everything.
    pub(super) fn new(text: &str) -> Option<Self> {
        match text.chars().count() {
            0 => None,
            1 | 2 => Some(Self::Prefix(Prefix::new(text))),
            _ => Some(Self::Substring(Substring::new(text))),
        }
    }
}

/// One or two characters that e-mail or name begin with.
#[derive(Clone, Debug)]
pub(super) struct Prefix {
    /// The texts in lower case that begin so.
    pub(super) lower: Range<String>,
    /// The texts as written that begin so in lower case, and few others: apart from each other, and in order.
    pub(super) written: Vec<Range<String>>,
}

impl Prefix {
    fn new(text: &str) -> Self {
        // What has its last character, and what goes on.
        let (mut whole, mut open) = (Vec::new(), vec![String::new()]);
        for lower in text.chars() {
            let capitals = CAPITALS.get(&lower).into_iter().flatten();
            let mut longer = Vec::new();
            for start in &open {
                longer.push(format!("{start}{lower}"));
                for capital in capitals.clone() {
                    // One that becomes several characters may be all of it.
                    let into = if capital.to_lowercase().count() > 1 { &mut whole } else { &mut longer };
                    into.push(format!("{start}{capital}"));
                }
            }
            open = longer;
        }
        whole.append(&mut open);
        whole.sort_unstable();
        Self { lower: beginning_with(text), written: whole.iter().map(|start| beginning_with(start)).collect() }
    }
}

/// Which characters become one that begins with this in lower case, other than itself.
static CAPITALS: LazyLock<HashMap<char, Vec<char>>> = LazyLock::new(|| {
    let mut capitals: HashMap<char, Vec<char>> = HashMap::new();
    for capital in '\0'..=char::MAX {
        if let Some(lower) = capital.to_lowercase().next().filter(|lower| *lower != capital) {
            capitals.entry(lower).or_default().push(capital);
        }
    }
    // The one letter whose lower case depends on where it stands.
    capitals.entry('ς').or_default().push('Σ');
    capitals
});

/// The texts that begin with this one, byte by byte.
fn beginning_with(text: &str) -> Range<String> {
    let mut next = text.to_owned();
    // UTF-8 sorts as its characters do: what comes next has the next character at its end.
    while let Some(last) = next.pop() {
        if let Some(character) = (last..=char::MAX).nth(1) {
            next.push(character);
            return text.to_owned()..next;
        }
    }
    // Nothing comes next where all characters are the last there is. No e-mail has as many of it.
    text.to_owned()..char::MAX.to_string().repeat(1_000)
}

/// A part of e-mail or name.
#[derive(Clone, Debug)]
pub(super) struct Substring {
    /// For `LIKE`, on `search_text`.
    pub(super) pattern: String,
    indexed: Indexed,
}

impl Substring {
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

/// See [`Substring::indexed`]. What becomes of it stands with each database.
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
        let next = |text: &str| {
            let Range { start, end } = beginning_with(text);
            assert!(start == text && format!("{text}\u{10ffff}\u{10ffff}") < end, "{text:?}");
            end
        };
        assert_eq!(next("jo"), "jp");
        assert_eq!(next("é"), "ê");
        assert_eq!(next("\u{d7ff}"), "\u{e000}", "there are no characters between");
        assert_eq!(next("a\u{10ffff}"), "b");
        next("\u{10ffff}");
    }

    #[test]
    fn whatever_begins_so_in_lower_case_is_in_one_range_of_what_is_written() {
        let starts = |text| Prefix::new(text).written.into_iter().map(|range| range.start).collect::<Vec<_>>();
        assert_eq!(starts("j"), ["J", "j"]);
        assert_eq!(starts("k1"), ["K1", "k1", "\u{212a}1"]);
        assert_eq!(starts("1"), ["1"]);
        let changes = |letter: &char| letter.to_lowercase().next() != Some(*letter);
        for first in ('\0'..=char::MAX).filter(|letter| changes(letter) || u32::from(*letter) % 97 == 0) {
            for written in [format!("{first}"), format!("{first}x"), format!("A{first}")] {
                let lower: String = written.to_lowercase().chars().take(2).collect();
                let found = Prefix::new(&lower).written.iter().filter(|range| range.contains(&written)).count();
                assert_eq!(found, 1, "{written:?}");
            }
        }
    }
}

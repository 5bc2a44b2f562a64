//! Search terms for lists of users.
//!
//! A term of three characters or more is a substring search, which a trigram or full-text index supports. A term of one
//! or two characters is a prefix search, which is a range scan of an ordinary index.

use std::{collections::HashMap, ops::Range, sync::LazyLock};

use crate::{
    backend::user_search::{FullTextQuery, SearchIndexCondition, covering_trigrams, quote_phrase},
    page::{contains_pattern, escape_like},
};

/// Parsed search term.
pub(super) enum SearchTerm {
    /// Matches users whose handle or name starts with this text of one or two characters.
    Prefix(Prefix),
    /// Matches users whose handle, name or external id contains this text of three or more
    /// characters.
    Substring(Substring),
}

impl SearchTerm {
    /// Parses a lower-case text. `None` if it is empty, because an empty term matches every user.
    pub(super) fn new(text: &str) -> Option<Self> {
        match text.chars().count() {
            0 => None,
            1 | 2 => Some(Self::Prefix(Prefix::new(text))),
            _ => Some(Self::Substring(Substring::new(text))),
        }
    }
}

/// Prefix of one or two characters.
#[derive(Clone, Debug)]
pub(super) struct Prefix {
    /// Range of the lower-case texts that start with the prefix.
    pub(super) lowercase_range: Range<String>,
    /// Ranges of the original texts whose lower-case form starts with the prefix, disjoint and in
    /// ascending order. The ranges may contain a few other texts.
    pub(super) original_case_ranges: Vec<Range<String>>,
}

impl Prefix {
    fn new(text: &str) -> Self {
        let (mut complete, mut partial) = (Vec::new(), vec![String::new()]);
        for lower in text.chars() {
            let variants = CASE_VARIANTS.get(&lower).into_iter().flatten();
            let mut extended = Vec::new();
            for start in &partial {
                extended.push(format!("{start}{lower}"));
                for variant in variants.clone() {
                    // Some characters have a lower-case form of several characters, which may
                    // complete the prefix.
                    let target = if variant.to_lowercase().count() > 1 { &mut complete } else { &mut extended };
                    target.push(format!("{start}{variant}"));
                }
            }
            partial = extended;
        }
        complete.append(&mut partial);
        complete.sort_unstable();
        Self {
            lowercase_range: prefix_range(text),
            original_case_ranges: complete.iter().map(|start| prefix_range(start)).collect(),
        }
    }
}

/// Maps a character to the other characters whose lower-case form starts with it.
static CASE_VARIANTS: LazyLock<HashMap<char, Vec<char>>> = LazyLock::new(|| {
    let mut variants: HashMap<char, Vec<char>> = HashMap::new();
    for character in '\0'..=char::MAX {
        if let Some(lower) = character.to_lowercase().next().filter(|lower| *lower != character) {
            variants.entry(lower).or_default().push(character);
        }
    }
    // `str::to_lowercase` maps Σ to ς at the end of a word. It is the only letter whose lower case depends on its
    // position.
    variants.entry('ς').or_default().push('Σ');
    variants
});

/// Returns the range of texts that start with `text`, in byte order.
fn prefix_range(text: &str) -> Range<String> {
    let mut end = text.to_owned();
    // The byte order of UTF-8 equals the order of code points, so incrementing the last character yields the end.
    while let Some(last) = end.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            end.push(next);
            return text.to_owned()..end;
        }
    }
    // The prefix consists of `char::MAX` only, so no text is greater than all texts with this prefix. Use an end that
    // is longer than any handle.
    text.to_owned()..char::MAX.to_string().repeat(1_000)
}

/// Substring of a handle, name or external id.
#[derive(Clone, Debug)]
pub(super) struct Substring {
    /// `LIKE` pattern for `users.search_text`.
    pub(super) pattern: String,
    index_condition: SearchIndexCondition,
}

impl Substring {
    fn new(text: &str) -> Self {
        // The lines of `search_text` are handle, name and external id. A handle cannot contain a
        // line feed, so a term with a line feed must match after the first line.
        let is_name_only = text.contains('\n');
        let pattern = if is_name_only { format!("%\n%{}%", escape_like(text)) } else { contains_pattern(text) };
        let index_condition = SearchIndexCondition {
            trigrams: covering_trigrams(text),
            phrase: quote_phrase(text),
            pattern: pattern.clone(),
            is_name_only,
        };
        Self { pattern, index_condition }
    }

    /// Returns the SQLite full-text query; `None` if it could also find users that do not match.
    /// Its matches can be counted without reading the `users` table.
    pub(super) fn exact_full_text_query(&self) -> Option<FullTextQuery> {
        (!self.index_condition.is_name_only).then(|| FullTextQuery { phrase: self.index_condition.phrase.clone() })
    }

    /// Returns the condition that selects the matching users by the search index.
    pub(super) fn index_condition(&self) -> SearchIndexCondition {
        self.index_condition.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_range_ends_after_all_texts_with_the_prefix() {
        let range_end = |text: &str| {
            let Range { start, end } = prefix_range(text);
            assert!(start == text && format!("{text}\u{10ffff}\u{10ffff}") < end, "{text:?}");
            end
        };
        assert_eq!(range_end("jo"), "jp");
        assert_eq!(range_end("é"), "ê");
        assert_eq!(range_end("\u{d7ff}"), "\u{e000}", "the surrogate code points between are not characters");
        assert_eq!(range_end("a\u{10ffff}"), "b");
        range_end("\u{10ffff}");
    }

    #[test]
    fn original_case_ranges_contain_every_text_with_the_lowercase_prefix_once() {
        let starts =
            |text| Prefix::new(text).original_case_ranges.into_iter().map(|range| range.start).collect::<Vec<_>>();
        assert_eq!(starts("j"), ["J", "j"]);
        assert_eq!(starts("k1"), ["K1", "k1", "\u{212a}1"]);
        assert_eq!(starts("1"), ["1"]);
        let has_lowercase_form = |letter: &char| letter.to_lowercase().next() != Some(*letter);
        for first in ('\0'..=char::MAX).filter(|letter| has_lowercase_form(letter) || u32::from(*letter) % 97 == 0) {
            for original in [format!("{first}"), format!("{first}x"), format!("A{first}")] {
                let lower: String = original.to_lowercase().chars().take(2).collect();
                let count =
                    Prefix::new(&lower).original_case_ranges.iter().filter(|range| range.contains(&original)).count();
                assert_eq!(count, 1, "{original:?}");
            }
        }
    }
}

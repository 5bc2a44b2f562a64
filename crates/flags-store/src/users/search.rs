//! Search terms for lists of users.
//!
//! A term of three characters or more is a substring search, which a trigram or full-text index supports. A term of one
//! or two characters is a prefix search, which is a range scan of an ordinary index.

use std::{collections::HashMap, ops::Range, sync::LazyLock};

use flags_domain::search_form;
use unicode_normalization::{
    UnicodeNormalization as _,
    char::{canonical_combining_class, decompose_canonical},
};

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
    /// Parses a text in its [`search_form`]. `None` if it is empty, because an empty term matches every user.
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
    /// Range of the search forms that start with the prefix.
    pub(super) lowercase_range: Range<String>,
    /// Ranges that cover all original texts whose search form starts with the prefix, disjoint and in ascending order.
    /// They may also contain other texts.
    pub(super) original_case_ranges: Vec<Range<String>>,
}

impl Prefix {
    fn new(text: &str) -> Self {
        let (mut complete, mut partial) = (Vec::new(), vec![String::new()]);
        for character in text.chars() {
            if canonical_combining_class(character) != 0 {
                // Stop at a combining mark: in the original text, the marks after a letter may have another order.
                break;
            }
            let originals = ORIGINALS.get(&character);
            let exact = originals.iter().flat_map(|originals| &originals.exact).chain([&character]);
            let starts = originals.iter().flat_map(|originals| &originals.starts);
            complete.extend(partial.iter().flat_map(|start| starts.clone().map(move |next| format!("{start}{next}"))));
            partial =
                partial.iter().flat_map(|start| exact.clone().map(move |next| format!("{start}{next}"))).collect();
        }
        complete.append(&mut partial);
        complete.sort_unstable();
        Self {
            lowercase_range: prefix_range(text),
            original_case_ranges: complete.iter().map(|start| prefix_range(start)).collect(),
        }
    }
}

/// Characters of original texts that correspond to one character of a search form. Excludes that character itself.
#[derive(Clone, Debug, Default)]
struct Originals {
    /// Characters whose search form is exactly this character.
    exact: Vec<char>,
    /// First characters of longer sequences that correspond to this character, and characters whose search form is
    /// longer. Such a character may cover the rest of a prefix.
    starts: Vec<char>,
}

/// Maps each character of search forms to the original characters that correspond to it.
static ORIGINALS: LazyLock<HashMap<char, Originals>> = LazyLock::new(|| {
    let mut originals: HashMap<char, Originals> = HashMap::new();
    // Pairs of a character of a search form and the form of the first character of an equivalent sequence.
    let mut sequences: Vec<(char, char)> = Vec::new();
    for character in '\0'..=char::MAX {
        let mut decomposed = Vec::new();
        decompose_canonical(character, |part| decomposed.push(part));
        if decomposed == [character] && character.to_lowercase().eq([character]) {
            continue;
        }
        let (form, is_longer) = form_of(character);
        if form != character {
            let entry = originals.entry(form).or_default();
            if is_longer { entry.starts.push(character) } else { entry.exact.push(character) }
        }
        // An equivalent sequence starts with the letter, combined with any of the marks.
        let Some((letter, marks)) = decomposed.split_first() else { continue };
        for selection in 0..(1_usize << marks.len()) - 1 {
            let selected = marks.iter().enumerate().filter(|(index, _)| selection >> index & 1 == 1);
            let sequence = std::iter::once(*letter).chain(selected.map(|(_, mark)| *mark));
            if let Some(first) = sequence.nfc().next()
                && form_of(first).0 != form
            {
                sequences.push((form, form_of(first).0));
            }
        }
    }
    // The search form of ς, which the loop skips as a lower-case letter, is σ.
    originals.entry('σ').or_default().exact.push('ς');
    let letters = originals.clone();
    for (form, first) in sequences {
        let Originals { exact, starts } = letters.get(&first).cloned().unwrap_or_default();
        originals.entry(form).or_default().starts.extend(exact.into_iter().chain(starts).chain([first]));
    }
    for entry in originals.values_mut() {
        entry.starts.sort_unstable();
        entry.starts.dedup();
        entry.exact.retain(|character| entry.starts.binary_search(character).is_err());
    }
    originals
});

/// Returns the first character of a character's search form, and whether more characters follow.
fn form_of(character: char) -> (char, bool) {
    let form = search_form(character.encode_utf8(&mut [0; 4]));
    let mut characters = form.chars();
    (characters.next().unwrap_or(character), characters.next().is_some())
}

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

/// Separates the forms of the handle and the external id in `users.search_text`. The name follows after a line feed.
pub(super) const SEPARATOR: char = '\u{1f}';

/// Substring of a handle, an external id or a name.
#[derive(Clone, Debug)]
pub(super) struct Substring {
    /// `LIKE` pattern for `users.search_text`.
    pub(super) pattern: String,
    index_condition: SearchIndexCondition,
}

impl Substring {
    fn new(text: &str) -> Self {
        // Handles and external ids contain no control characters, so a term with a line feed or a separator must match
        // within the name.
        let is_name_only = text.contains(['\n', SEPARATOR]);
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
        assert_eq!(starts("\u{e5}"), ["A", "a", "\u{c5}", "\u{e5}", "\u{212b}"]);
        assert_eq!(starts("x\u{323}"), ["X", "x"], "marks may have another order");
        let has_other_form = |letter: &char| {
            let mut decomposed = 0;
            decompose_canonical(*letter, |_| decomposed += 1);
            decomposed > 1 || form_of(*letter) != (*letter, false)
        };
        for first in ('\0'..=char::MAX).filter(|letter| has_other_form(letter) || u32::from(*letter) % 97 == 0) {
            let decomposed: String = first.nfd().collect();
            let lower_first: String = first.to_lowercase().nfd().collect();
            let mixed = decomposed.chars().take(1).flat_map(char::to_uppercase).chain(lower_first.chars().skip(1));
            for original in [
                format!("{first}"),
                format!("{first}x"),
                format!("A{first}"),
                format!("{decomposed}x"),
                format!("A{decomposed}"),
                mixed.collect(),
                "x\u{301}\u{323}".to_owned(),
            ] {
                let form: Vec<char> = search_form(&original).chars().collect();
                for length in 1..=form.len().min(2) {
                    let prefix: String = form[..length].iter().collect();
                    let ranges = Prefix::new(&prefix).original_case_ranges;
                    let count = ranges.iter().filter(|range| range.contains(&original)).count();
                    assert_eq!(count, 1, "{original:?} {prefix:?}");
                }
            }
        }
    }
}

//! Sets of regular expressions with a known bound on the cost of a search.

use regex::{RegexBuilder, RegexSet, RegexSetBuilder};
use regex_automata::{
    dfa::{StartKind, dense},
    nfa::thompson::{self, NFA},
};

use crate::violation::Violation;

/// Compiled size above which an expression is reported as too large, in bytes. Checked only if the
/// expressions of the condition do not compile together.
const MAX_REGEX_BYTES: usize = 1 << 18;
/// Maximum compiled size of all regular expressions of one condition together, in bytes.
const MAX_REGEX_SET_BYTES: usize = 1 << 20;

/// Maximum number of regular expressions of one flag. Bounds the time and memory for compiling them.
pub const MAX_REGEXES: usize = 50;

/// Maximum length of a text that the operator `matches` searches, in bytes. A longer text fails the condition.
pub const MAX_SEARCHED_TEXT_BYTES: usize = 4 * 1024;

/// Maximum size of a nondeterministic automaton that [`has_small_dfa`] tries to make deterministic,
/// in bytes. Bounds the time for compiling a flag.
const MAX_DETERMINIZED_NFA_BYTES: usize = 64 * 1024;
/// Maximum size of the deterministic automaton, in bytes. Small enough for the regex engine to
/// cache all of its states.
const MAX_DFA_BYTES: usize = 512 * 1024;
/// Maximum memory for building the deterministic automaton, in bytes. Bounds the time for compiling a flag.
const MAX_DETERMINIZATION_BYTES: usize = 256 * 1024;

/// Regular expressions of one condition.
#[derive(Debug)]
pub(super) struct Regexes {
    set: RegexSet,
    cost: SearchCost,
}

/// Upper bound on the time of a search.
#[derive(Debug)]
enum SearchCost {
    /// Proportional to the length of the text. A small deterministic automaton exists for the
    /// expressions, so the search builds each state only once.
    Linear,
    /// Proportional to the length of the text times the compiled size of the expressions, which is
    /// this value in bytes.
    Product(u64),
}

impl Regexes {
    /// Compiles the patterns, or returns the violations, with pointers relative to the condition.
    pub(super) fn compile(patterns: &[Box<str>]) -> Result<Self, Vec<Violation>> {
        if patterns.len() > MAX_REGEXES {
            let detail =
                format!("a condition can have at most {MAX_REGEXES} regular expressions; combine them with `|`");
            return Err(vec![Violation::new("/values", "too_many", detail)]);
        }
        let set = RegexSetBuilder::new(patterns).size_limit(MAX_REGEX_SET_BYTES).build();
        let set = set.map_err(|_| violations(patterns))?;
        Ok(Self { set, cost: SearchCost::of(patterns) })
    }

    /// Returns whether any of the expressions matches.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.set.is_match(text)
    }

    /// Upper bound on the work of searching a text of this length, in units of the
    /// [`EvaluationBudget`](crate::EvaluationBudget).
    pub(super) const fn cost(&self, text_bytes: u64) -> u64 {
        match self.cost {
            SearchCost::Linear => 100 + 4 * text_bytes,
            SearchCost::Product(size) => 100 + size.saturating_mul(text_bytes) / 4,
        }
    }
}

impl SearchCost {
    fn of(patterns: &[Box<str>]) -> Self {
        // Not expected to fail: the caller has compiled the patterns with the same syntax and size
        // limit.
        let Some(nfa) = compile_nfa(patterns) else { return Self::Product(MAX_REGEX_SET_BYTES as u64) };
        let size = nfa.memory_usage();
        let is_linear = size <= MAX_DETERMINIZED_NFA_BYTES && has_small_dfa(&nfa);
        if is_linear { Self::Linear } else { Self::Product(size as u64) }
    }
}

fn compile_nfa(patterns: &[Box<str>]) -> Option<NFA> {
    let config = thompson::Config::new().nfa_size_limit(Some(MAX_REGEX_SET_BYTES));
    thompson::Compiler::new().configure(config).build_many(patterns).ok()
}

fn has_small_dfa(nfa: &NFA) -> bool {
    let config = dense::Config::new()
        .start_kind(StartKind::Unanchored)
        .dfa_size_limit(Some(MAX_DFA_BYTES))
        .determinize_size_limit(Some(MAX_DETERMINIZATION_BYTES));
    dense::Builder::new().configure(config).build_from_nfa(nfa).is_ok()
}

/// Returns the compiled size of the patterns together, in bytes; `None` if they do not compile.
pub(crate) fn compiled_size(patterns: &[Box<str>]) -> Option<usize> {
    compile_nfa(patterns).map(|nfa| nfa.memory_usage())
}

/// Compiles the patterns one by one to find the invalid ones.
fn violations(patterns: &[Box<str>]) -> Vec<Violation> {
    let invalid = |(index, pattern): (usize, &str)| {
        let error = RegexBuilder::new(pattern).size_limit(MAX_REGEX_BYTES).build().err()?;
        Some(Violation::new(format!("/values/{index}"), "invalid_regex", describe(&error)))
    };
    let violations: Vec<_> = patterns.iter().map(|pattern| &**pattern).enumerate().filter_map(invalid).collect();
    let detail = "the compiled regular expressions of this condition are together larger than 1 MiB; simplify them";
    if violations.is_empty() { vec![Violation::new("/values", "invalid_regex", detail)] } else { violations }
}

fn describe(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => {
            "the compiled regular expression is larger than 256 KiB; simplify it".to_owned()
        }
        other => format!("not a valid regular expression: {}", last_line(&other.to_string())),
    }
}

/// Returns the last line of the message of a regex error, which holds the cause. The lines before it show the pattern.
fn last_line(text: &str) -> &str {
    text.trim_end().rsplit('\n').next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(pattern: &str) -> Regexes {
        Regexes::compile(&[pattern.into()]).unwrap()
    }

    #[test]
    fn cost_of_common_expressions_is_linear_in_text_length() {
        for pattern in [r"^\w+@example\.com$", r"^v?\d+\.\d+(\.\d+)?(-[\w.]+)?$", "foo.*bar", "(?i)straße|über", ""] {
            assert_eq!(compile(pattern).cost(1_000), 4_100, "{pattern}");
        }
    }

    #[test]
    fn cost_without_small_dfa_is_text_length_times_compiled_size() {
        for pattern in [r"(?:[ab]*a){6000}[^a-z]", r"\w{10}", r"(a|b|c)*a(a|b|c){12}", r"\bfoo\b"] {
            let size = compiled_size(&[pattern.into()]).unwrap() as u64;
            assert_eq!(compile(pattern).cost(1_000), 100 + size * 250, "{pattern}");
        }
    }
}

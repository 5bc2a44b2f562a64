//! What is wrong with a definition, and where: the unit in which checks report.

use serde::Serialize;

/// One thing that is wrong with a piece of input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// JSON pointer (RFC 6901) to the offending field, e.g. `/targeting_rules/0/serve`.
    pub pointer: String,
    /// Stable, machine-readable name of the problem, e.g. `unknown_variant`.
    pub code: &'static str,
    /// A sentence for people that says what to do.
    pub detail: String,
}

impl Violation {
    /// A violation at `pointer`.
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, detail: detail.into() }
    }

    /// The same violation seen from one level further out.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }
}

/// Checks a text for people or of a key: at most `max` characters and no NUL (PostgreSQL cannot store one).
pub fn check_text(pointer: &str, text: &str, max: usize) -> Option<Violation> {
    if text.contains('\0') {
        return Some(Violation::new(pointer, "nul_character", "must not contain the NUL character"));
    }
    if text.chars().count() > max {
        return Some(Violation::new(pointer, "too_long", format!("must have at most {max} characters")));
    }
    None
}

/// Like [`check_text`], and not empty.
pub fn check_key(pointer: &str, text: &str, max: usize) -> Option<Violation> {
    if text.is_empty() {
        return Some(Violation::new(pointer, "empty", "must not be empty"));
    }
    check_text(pointer, text, max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_gains_the_prefix_of_its_surroundings() {
        let inner = Violation::new("/values/2", "x", "y");
        assert_eq!(inner.under("/conditions/0").pointer, "/conditions/0/values/2");
    }

    #[test]
    fn length_counts_characters_not_bytes() {
        assert_eq!(check_text("/a", "ééé", 3), None);
        assert_eq!(check_text("/a", "éééé", 3).map(|v| v.code), Some("too_long"));
        assert_eq!(check_text("/a", "a\0", 3).map(|v| v.code), Some("nul_character"));
        assert_eq!(check_key("/a", "", 3).map(|v| v.code), Some("empty"));
    }
}

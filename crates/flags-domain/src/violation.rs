//! Violations: problems that validation finds in an input.

use serde::Serialize;

/// One problem of an input, as reported by the API in `errors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// JSON pointer (RFC 6901) to the invalid field, such as `/targeting_rules/0/serve`.
    pub pointer: String,
    /// Stable, machine-readable code of the problem, such as `unknown_variant`.
    pub code: &'static str,
    /// Human-readable description of the problem and its solution.
    pub detail: String,
}

impl Violation {
    /// Creates a violation of the field at `pointer`.
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, detail: detail.into() }
    }

    /// Returns the violation with `prefix` prepended to its pointer. Turns a pointer relative to a nested value into
    /// one relative to the outer value.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }
}

/// Checks that a text has at most `max` characters and no NUL character, which PostgreSQL cannot store.
pub fn check_text(pointer: &str, text: &str, max: usize) -> Option<Violation> {
    if text.contains('\0') {
        return Some(Violation::new(pointer, "nul_character", "must not contain the NUL character"));
    }
    if text.chars().count() > max {
        return Some(Violation::new(pointer, "too_long", format!("must have at most {max} characters")));
    }
    None
}

/// Like [`check_text`], but also rejects an empty text.
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
    fn with_prefix_prepends_to_the_pointer() {
        let inner = Violation::new("/values/2", "x", "y");
        assert_eq!(inner.with_prefix("/conditions/0").pointer, "/conditions/0/values/2");
    }

    #[test]
    fn maximum_length_counts_characters_not_bytes() {
        assert_eq!(check_text("/a", "ééé", 3), None);
        assert_eq!(check_text("/a", "éééé", 3).map(|v| v.code), Some("too_long"));
        assert_eq!(check_text("/a", "a\0", 3).map(|v| v.code), Some("nul_character"));
        assert_eq!(check_key("/a", "", 3).map(|v| v.code), Some("empty"));
    }
}

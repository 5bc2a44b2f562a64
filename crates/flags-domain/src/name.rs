//! Flag names.

use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Serialize};

/// Unique name of a flag, such as `ui.dark_mode`.
///
/// A name matches `^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$` and has at most 255 characters. It needs no escaping in JSON,
/// URLs and metric labels. Cloning increments a reference count and does not allocate.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FlagName(Arc<str>);

/// Error for text that is not a valid flag name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be words joined by dots, such as ui.dark_mode, with at most 255 characters in total; each word starts with a \
     lower-case letter and contains only lower-case letters, digits and underscores"
)]
pub struct InvalidFlagName;

impl FlagName {
    /// Maximum length of a name, in characters.
    pub const MAX_LENGTH: usize = 255;

    /// Validates `text` and copies it into a name.
    pub fn new(text: &str) -> Result<Self, InvalidFlagName> {
        let valid = text.len() <= Self::MAX_LENGTH && text.split('.').all(is_word);
        if valid { Ok(Self(text.into())) } else { Err(InvalidFlagName) }
    }

    /// Returns the name as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

impl TryFrom<String> for FlagName {
    type Error = InvalidFlagName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<FlagName> for String {
    fn from(name: FlagName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl Deref for FlagName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for FlagName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FlagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FlagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_dotted_lower_case_words() {
        for valid in ["a", "ui.dark_mode", "a1.b2_", &"a".repeat(255)] {
            assert!(FlagName::new(valid).is_ok(), "{valid}");
        }
        for invalid in
            ["", "A", "1a", "_a", "a.", ".a", "a..b", "a.1", "a-b", "a b", "é", "a\0", "a\n", &"a".repeat(256)]
        {
            assert_eq!(FlagName::new(invalid), Err(InvalidFlagName), "{invalid:?}");
        }
    }
}

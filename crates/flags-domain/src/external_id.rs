//! Ids of users in other systems, and the UUIDs that are derived from them.

use uuid::Uuid;

use crate::violation::{Violation, check_key};

/// Maximum length of an external id in characters.
pub const MAX_EXTERNAL_ID_LENGTH: usize = 255;

/// Secret namespace of one database, from which the UUIDs of users with an external id are derived.
///
/// All servers on a database use the same namespace, so each server can compute a user's id from
/// the external id without a lookup. The namespace is secret because it allows checking which
/// external id a UUID was derived from. `Debug` does not print it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UserIdNamespace(Uuid);

impl std::fmt::Debug for UserIdNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserIdNamespace(…)")
    }
}

impl UserIdNamespace {
    /// Creates a namespace from secret random bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Returns the id of the user with this external id. A canonical UUID is used unchanged; any
    /// other text is hashed to a UUID version 5 (RFC 9562, section 5.5).
    pub fn user_id(&self, external_id: &str) -> Uuid {
        canonical_uuid(external_id).unwrap_or_else(|| Uuid::new_v5(&self.0, external_id.as_bytes()))
    }
}

/// Parses a UUID in canonical form: lower case, with hyphens. Returns `None` for other spellings.
pub fn canonical_uuid(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok()?;
    (*id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text).then_some(id)
}

/// Checks an external id: 1 to 255 characters, no `@` and no control characters. Without `@`, an
/// external id cannot be confused with an e-mail address.
pub fn check_external_id(pointer: &str, external_id: &str) -> Option<Violation> {
    if external_id.contains('@') {
        let detail = "must not contain `@`; use `email` for e-mail addresses";
        return Some(Violation::new(pointer, "looks_like_email", detail));
    }
    if external_id.contains(char::is_control) {
        return Some(Violation::new(pointer, "control_character", "must not contain control characters"));
    }
    check_key(pointer, external_id, MAX_EXTERNAL_ID_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_uuid_is_its_own_user_id_and_other_texts_are_hashed() {
        let namespace = UserIdNamespace::new([7; 16]);
        let id = "5d41402a-bc4b-2a76-b971-9d911017c592";
        assert_eq!(namespace.user_id(id).to_string(), id);
        for text in ["5D41402A-BC4B-2A76-B971-9D911017C592", "5d41402abc4b2a76b9719d911017c592", "ext-1", ""] {
            let derived = namespace.user_id(text);
            assert_eq!(derived.get_version_num(), 5, "{text}");
            assert_ne!(derived, UserIdNamespace::new([8; 16]).user_id(text), "{text}");
        }
        // Computed with Python: uuid.uuid5(uuid.UUID(bytes=b"\x07" * 16), "ext-1").
        assert_eq!(namespace.user_id("ext-1").to_string(), "d4040692-50ff-576b-a1d6-6b6387f13636");
    }

    #[test]
    fn rejects_invalid_external_ids() {
        let code = |text: &str| check_external_id("/external_id", text).map(|violation| violation.code);
        assert_eq!(code("Kunde 42/ä"), None);
        assert_eq!(code(""), Some("empty"));
        assert_eq!(code("a@b"), Some("looks_like_email"));
        assert_eq!(code("a\nb"), Some("control_character"));
        assert_eq!((code(&"ä".repeat(255)), code(&"ä".repeat(256))), (None, Some("too_long")));
    }
}

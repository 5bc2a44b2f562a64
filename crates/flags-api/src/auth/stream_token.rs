//! Signed tokens that authenticate OFREP event streams.
//!
//! Browsers cannot set headers on an `EventSource`, so the URL must carry the credential. A stream token only lets its
//! bearer learn *that* an evaluation may have changed; it gives access to nothing else.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flags_domain::Instant;
use flags_service::{
    acting_user::JwtSubject,
    credentials::{jwt::JwtUsers, signing::SigningKey},
};
use flags_store::users::Role;
use uuid::Uuid;

use super::Credential;

/// Length of an issuing window, in microseconds.
///
/// A token is valid until the end of the window after the one it was issued in. All tokens issued within a window are
/// identical, so a repeated evaluation returns the same stream URL. The windows of each credential and user are shifted
/// by a different offset, so that streams do not all end at the same time.
const WINDOW_MICROS: i64 = 60 * 60 * 1_000_000;

/// Version of the binary format that [`StreamToken::encode`] writes.
const VERSION: u8 = 1;

/// Permission to open the event stream that belongs to an evaluation of all flags.
#[derive(Clone, Debug)]
pub(crate) struct StreamToken {
    /// Credential that requested the evaluation. The server validates it again when the stream is opened.
    pub(crate) credential: Credential,
    /// User whose flags were evaluated, stored or not. `None` if the context had no targeting key.
    pub(crate) user_id: Option<Uuid>,
    /// Exclusive end of the token's validity.
    pub(crate) expires_at: Instant,
}

impl StreamToken {
    /// Issues a token to the holder of `credential`, for an evaluation for the user `user_id`.
    pub(crate) fn issue(credential: Credential, user_id: Option<Uuid>, now: Instant) -> Self {
        let (high, low) = user_id.unwrap_or_default().as_u64_pair();
        let shift = ((credential.fingerprint() ^ high ^ low) >> 1).cast_signed() % WINDOW_MICROS;
        let window = now.as_micros().saturating_sub(shift).div_euclid(WINDOW_MICROS);
        let expires_at = window.saturating_add(2).saturating_mul(WINDOW_MICROS).saturating_add(shift);
        let expires_at = Instant::from_micros(expires_at);
        let expires_at = match credential {
            Credential::Jwt { expires_at: jwt_expires_at, .. } => expires_at.min(jwt_expires_at),
            Credential::Token { .. } | Credential::Session { .. } => expires_at,
        };
        Self { credential, user_id, expires_at }
    }

    /// Encodes and signs the token. The result is unpadded base64url.
    pub(crate) fn encode(&self, key: &SigningKey) -> String {
        let mut bytes = vec![VERSION];
        match &self.credential {
            Credential::Token { hash, .. } => {
                bytes.push(b't');
                bytes.extend(hash);
            }
            Credential::Session { hash, .. } => {
                bytes.push(b's');
                bytes.extend(hash);
            }
            // The key and the attributes are omitted, because they may contain personal data.
            Credential::Jwt { user_id, max_role, expires_at, users, .. } => {
                bytes.extend([jwt_byte(*users), role_byte(*max_role)]);
                bytes.extend(user_id.as_bytes());
                bytes.extend(expires_at.as_micros().to_be_bytes());
            }
        }
        bytes.extend(self.expires_at.as_micros().to_be_bytes());
        bytes.extend(self.user_id.iter().flat_map(|user_id| user_id.into_bytes()));
        bytes.extend(key.sign(&bytes));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Decodes a token. Returns `None` if it is malformed, expired or not signed with `key`.
    pub(crate) fn verify(text: &str, key: &SigningKey, now: Instant) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (message, signature) = bytes.split_last_chunk::<32>()?;
        if !key.verify(message, signature) {
            return None;
        }
        parse_message(message).filter(|stream_token| stream_token.expires_at > now)
    }
}

const fn jwt_byte(users: JwtUsers) -> u8 {
    match users {
        JwtUsers::Known => b'j',
        JwtUsers::Any => b'a',
    }
}

const fn role_byte(role: Role) -> u8 {
    match role {
        Role::User => b'u',
        Role::Viewer => b'v',
        Role::Support => b's',
        Role::Admin => b'a',
    }
}

fn parse_message(message: &[u8]) -> Option<StreamToken> {
    let ([VERSION, kind], rest) = message.split_first_chunk::<2>()? else { return None };
    let (credential, rest) = match kind {
        b't' => {
            let (hash, rest) = rest.split_first_chunk::<32>()?;
            (Credential::Token { hash: *hash, user_id: None }, rest)
        }
        b's' => {
            let (hash, rest) = rest.split_first_chunk::<32>()?;
            (Credential::Session { hash: *hash, user_id: None }, rest)
        }
        b'j' | b'a' => {
            let users = if *kind == jwt_byte(JwtUsers::Any) { JwtUsers::Any } else { JwtUsers::Known };
            let (role, rest) = rest.split_first()?;
            let max_role = [Role::User, Role::Viewer, Role::Support, Role::Admin]
                .into_iter()
                .find(|known| role_byte(*known) == *role)?;
            let (user_id, rest) = rest.split_first_chunk::<16>()?;
            let (expires_at, rest) = split_instant(rest)?;
            let (user_id, subject) = (Uuid::from_bytes(*user_id), Arc::new(JwtSubject::default()));
            (Credential::Jwt { user_id, max_role, expires_at, users, subject }, rest)
        }
        _ => return None,
    };
    let (expires_at, rest) = split_instant(rest)?;
    let user_id = if rest.is_empty() { None } else { Some(Uuid::from_slice(rest).ok()?) };
    Some(StreamToken { credential, user_id, expires_at })
}

fn split_instant(bytes: &[u8]) -> Option<(Instant, &[u8])> {
    let (micros, rest) = bytes.split_first_chunk::<8>()?;
    Some((Instant::from_micros(i64::from_be_bytes(*micros)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::new(&[byte; 32]).unwrap()
    }

    fn at(text: &str) -> Instant {
        Instant::parse(&format!("2030-01-01T{text}Z")).unwrap()
    }

    fn token() -> Credential {
        Credential::Token { hash: std::array::from_fn(|index| index as u8), user_id: Some(Uuid::from_u128(7)) }
    }

    fn jwt(max_role: Role, users: JwtUsers, expires_at: Instant) -> Credential {
        let subject = Arc::new(JwtSubject::default());
        Credential::Jwt { user_id: Uuid::from_u128(9), max_role, expires_at, users, subject }
    }

    fn describe(stream_token: &StreamToken) -> String {
        let credential = match &stream_token.credential {
            Credential::Token { hash, user_id } => format!("token {hash:?} {user_id:?}"),
            Credential::Session { hash, user_id } => format!("session {hash:?} {user_id:?}"),
            Credential::Jwt { user_id, max_role, expires_at, users, .. } => {
                format!("jwt {user_id} {max_role:?} {expires_at} {users:?}")
            }
        };
        format!("{credential} {:?} {}", stream_token.user_id, stream_token.expires_at)
    }

    #[test]
    fn token_round_trips_through_its_encoding() {
        let now = at("10:20:30");
        let jwt = |max_role, users| jwt(max_role, users, at("11:00:00.000001"));
        let session = Credential::Session { hash: [3; 32], user_id: None };
        let jwts = [
            jwt(Role::User, JwtUsers::Known),
            jwt(Role::Viewer, JwtUsers::Any),
            jwt(Role::Admin, JwtUsers::Known),
            jwt(Role::User, JwtUsers::Any),
        ];
        for credential in [token(), session].into_iter().chain(jwts) {
            for user_id in [None, Some(Uuid::from_u128(1)), Some(Uuid::nil())] {
                let stream_token = StreamToken::issue(credential.clone(), user_id, now);
                let decoded = StreamToken::verify(&stream_token.encode(&key(1)), &key(1), now).unwrap();
                // The encoding omits the user of an API token or session, because the server looks it up again.
                let expected = StreamToken { credential: credential.clone().with_user(None), ..stream_token };
                assert_eq!(describe(&decoded), describe(&expected));
            }
        }
    }

    /// Returns a credential whose token windows begin on the hour.
    fn credential_with_hourly_windows() -> Credential {
        Credential::Token { hash: [0; 32], user_id: None }
    }

    #[test]
    fn tokens_of_one_window_are_equal_and_expire_after_the_next_window() {
        let encode = |now| StreamToken::issue(credential_with_hourly_windows(), None, now).encode(&key(1));
        assert_eq!(encode(at("10:00:00")), encode(at("10:59:59.999999")));
        assert_ne!(encode(at("10:59:59.999999")), encode(at("11:00:00")));
        let text = encode(at("10:00:00"));
        assert!(StreamToken::verify(&text, &key(1), at("11:59:59.999999")).is_some());
        assert!(StreamToken::verify(&text, &key(1), at("12:00:00")).is_none());
        let before_1970 = StreamToken::issue(credential_with_hourly_windows(), None, Instant::from_micros(-1));
        assert_eq!(before_1970.expires_at.as_micros(), WINDOW_MICROS);
    }

    #[test]
    fn tokens_of_different_users_expire_at_different_instants() {
        let now = at("10:20:30");
        let expiries: std::collections::BTreeSet<_> = (0..50)
            .map(|n| StreamToken::issue(token(), Some(Uuid::from_u128((n << 64) | (n * 977))), now).expires_at)
            .collect();
        assert!(expiries.len() > 20, "{}", expiries.len());
        let mut lifetimes = expiries.iter().map(|expires_at| expires_at.as_micros() - now.as_micros());
        assert!(lifetimes.all(|lifetime| (WINDOW_MICROS..=2 * WINDOW_MICROS).contains(&lifetime)));
    }

    #[test]
    fn token_expires_no_later_than_its_jwt() {
        let expires_at = at("10:05:00");
        let jwt = jwt(Role::User, JwtUsers::Known, expires_at);
        assert_eq!(StreamToken::issue(jwt, None, at("10:00:00")).expires_at, expires_at);
    }

    #[test]
    fn rejects_altered_and_malformed_tokens() {
        let now = at("10:00:00");
        let text = StreamToken::issue(token(), Some(Uuid::from_u128(5)), now).encode(&key(1));
        assert!(StreamToken::verify(&text, &key(1), now).is_some());
        assert!(StreamToken::verify(&text, &key(2), now).is_none(), "signed with another key");
        for index in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
            assert!(StreamToken::verify(std::str::from_utf8(&forged).unwrap(), &key(1), now).is_none(), "{index}");
        }
        for malformed in ["", "A", "AAAA", "é", &text[..text.len() - 2], &format!("{text}AA"), &"A".repeat(43)] {
            assert!(StreamToken::verify(malformed, &key(1), now).is_none(), "{malformed}");
        }
    }

    #[test]
    fn rejects_malformed_messages_with_a_valid_signature() {
        let now = at("10:00:00");
        let mut bytes = vec![VERSION, b't'];
        bytes.extend([0; 32]);
        bytes.extend(at("11:00:00").as_micros().to_be_bytes());
        let is_accepted = |message: &[u8]| {
            let signed = [message, &key(1).sign(message)].concat();
            StreamToken::verify(&URL_SAFE_NO_PAD.encode(signed), &key(1), now).is_some()
        };
        assert!(is_accepted(&bytes));
        for end in 0..bytes.len() {
            assert!(!is_accepted(&bytes[..end]), "{end}");
        }
        assert!(!is_accepted(&[&bytes[..], &[0]].concat()), "one byte is too short for a user id");
        assert!(is_accepted(&[&bytes[..], &[0; 16]].concat()), "a user id has 16 bytes");
        for (index, byte) in [(0, 2), (1, b'x')] {
            let mut changed = bytes.clone();
            changed[index] = byte;
            assert!(!is_accepted(&changed), "{index}");
        }
    }
}

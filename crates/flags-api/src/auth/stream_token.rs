//! What a page shows that follows its evaluations: browsers open event streams without any header, so the address must say
//! who asks. A ticket lets its bearer hear *that* something changed, and nothing else.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flags_domain::Instant;
use flags_service::credentials::signing::SigningKey;
use flags_store::users::Role;
use uuid::Uuid;

use super::Credential;

/// A ticket holds for the window it was issued in and the next one, in microseconds: all that are issued within one window
/// are the same, so that asking again does not move a client to another address. Windows begin at another instant for each
/// credential and user, so that streams do not all end at once.
const WINDOW: i64 = 60 * 60 * 1_000_000;

/// Of the form below.
const VERSION: u8 = 1;

/// Lets somebody follow what an evaluation of all flags gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamToken {
    /// Who asked. It must be valid still, and may still have to do with the user.
    pub(crate) credential: Credential,
    /// Whose overrides and attributes may matter; `None` of a targeting key that can be no user's.
    pub(crate) user_id: Option<Uuid>,
    /// It is void from this instant on.
    pub(crate) ends_at: Instant,
}

impl StreamToken {
    /// A ticket for whoever showed this credential and asked for this user.
    pub(crate) fn issue(credential: Credential, user_id: Option<Uuid>, now: Instant) -> Self {
        let (high, low) = user_id.unwrap_or_default().as_u64_pair();
        let shift = ((credential.key() ^ high ^ low) >> 1).cast_signed() % WINDOW;
        let window = now.as_micros().saturating_sub(shift).div_euclid(WINDOW);
        let ends_at = window.saturating_add(2).saturating_mul(WINDOW).saturating_add(shift);
        let ends_at = Instant::from_micros(ends_at);
        let ends_at = match credential {
            Credential::Jwt { expires_at, .. } => ends_at.min(expires_at),
            Credential::Token { .. } | Credential::Session { .. } => ends_at,
        };
        Self { credential, user_id, ends_at }
    }

    /// The text of it: its bytes and their signature in base64url.
    pub(crate) fn seal(&self, key: &SigningKey) -> String {
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
            Credential::Jwt { user_id, most, expires_at } => {
                bytes.extend([b'j', role_byte(*most)]);
                bytes.extend(user_id.as_bytes());
                bytes.extend(expires_at.as_micros().to_be_bytes());
            }
        }
        bytes.extend(self.ends_at.as_micros().to_be_bytes());
        bytes.extend(self.user_id.iter().flat_map(|user_id| user_id.into_bytes()));
        bytes.extend(key.sign(&bytes));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The ticket of this text, if it was signed by this key and is not void.
    pub(crate) fn open(text: &str, key: &SigningKey, now: Instant) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (message, signature) = bytes.split_last_chunk::<32>()?;
        if !key.verifies(message, signature) {
            return None;
        }
        read(message).filter(|ticket| ticket.ends_at > now)
    }
}

const fn role_byte(role: Role) -> u8 {
    match role {
        Role::User => b'u',
        Role::Viewer => b'v',
        Role::Admin => b'a',
    }
}

fn read(message: &[u8]) -> Option<StreamToken> {
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
        b'j' => {
            let (role, rest) = rest.split_first()?;
            let most = [Role::User, Role::Viewer, Role::Admin].into_iter().find(|known| role_byte(*known) == *role)?;
            let (user_id, rest) = rest.split_first_chunk::<16>()?;
            let (expires_at, rest) = read_instant(rest)?;
            (Credential::Jwt { user_id: Uuid::from_bytes(*user_id), most, expires_at }, rest)
        }
        _ => return None,
    };
    let (ends_at, rest) = read_instant(rest)?;
    let user_id = if rest.is_empty() { None } else { Some(Uuid::from_slice(rest).ok()?) };
    Some(StreamToken { credential, user_id, ends_at })
}

fn read_instant(bytes: &[u8]) -> Option<(Instant, &[u8])> {
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
        Credential::Token { hash: std::array::from_fn(|place| place as u8), user_id: Some(Uuid::from_u128(7)) }
    }

    /// What is in it, as text.
    fn parts(ticket: &StreamToken) -> String {
        let credential = match ticket.credential {
            Credential::Token { hash, user_id } => format!("token {hash:?} {user_id:?}"),
            Credential::Session { hash, user_id } => format!("session {hash:?} {user_id:?}"),
            Credential::Jwt { user_id, most, expires_at } => format!("jwt {user_id} {most:?} {expires_at}"),
        };
        format!("{credential} {:?} {}", ticket.user_id, ticket.ends_at)
    }

    #[test]
    fn a_ticket_comes_back_as_it_was_issued() {
        let now = at("10:20:30");
        let jwt = |most| Credential::Jwt { user_id: Uuid::from_u128(9), most, expires_at: at("11:00:00.000001") };
        let session = Credential::Session { hash: [3; 32], user_id: None };
        for credential in [token(), session, jwt(Role::User), jwt(Role::Viewer), jwt(Role::Admin)] {
            for user_id in [None, Some(Uuid::from_u128(1)), Some(Uuid::nil())] {
                let ticket = StreamToken::issue(credential, user_id, now);
                let opened = StreamToken::open(&ticket.seal(&key(1)), &key(1), now).unwrap();
                // Whom a credential acts as is looked up anew.
                let expected = StreamToken { credential: credential.acting_as(None), ..ticket };
                assert_eq!(parts(&opened), parts(&expected));
            }
        }
    }

    /// One whose windows begin at full hours.
    fn punctual() -> Credential {
        Credential::Token { hash: [0; 32], user_id: None }
    }

    #[test]
    fn tickets_of_one_hour_are_the_same_and_end_with_the_next_one() {
        let seal = |now| StreamToken::issue(punctual(), None, now).seal(&key(1));
        assert_eq!(seal(at("10:00:00")), seal(at("10:59:59.999999")));
        assert_ne!(seal(at("10:59:59.999999")), seal(at("11:00:00")));
        let text = seal(at("10:00:00"));
        assert!(StreamToken::open(&text, &key(1), at("11:59:59.999999")).is_some());
        assert!(StreamToken::open(&text, &key(1), at("12:00:00")).is_none());
        let before_1970 = StreamToken::issue(punctual(), None, Instant::from_micros(-1));
        assert_eq!(before_1970.ends_at.as_micros(), WINDOW);
    }

    #[test]
    fn tickets_of_different_users_end_at_different_instants() {
        let now = at("10:20:30");
        let ends: std::collections::BTreeSet<_> = (0..50)
            .map(|n| StreamToken::issue(token(), Some(Uuid::from_u128((n << 64) | (n * 977))), now).ends_at)
            .collect();
        assert!(ends.len() > 20, "{}", ends.len());
        let left = ends.iter().map(|end| end.as_micros() - now.as_micros());
        assert!(left.into_iter().all(|left| (WINDOW..=2 * WINDOW).contains(&left)));
    }

    #[test]
    fn a_ticket_ends_with_its_jwt() {
        let expires_at = at("10:05:00");
        let jwt = Credential::Jwt { user_id: Uuid::nil(), most: Role::User, expires_at };
        assert_eq!(StreamToken::issue(jwt, None, at("10:00:00")).ends_at, expires_at);
    }

    #[test]
    fn no_letter_of_a_ticket_can_be_changed() {
        let now = at("10:00:00");
        let text = StreamToken::issue(token(), Some(Uuid::from_u128(5)), now).seal(&key(1));
        assert!(StreamToken::open(&text, &key(1), now).is_some());
        assert!(StreamToken::open(&text, &key(2), now).is_none(), "another service's");
        for place in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
            assert!(StreamToken::open(std::str::from_utf8(&forged).unwrap(), &key(1), now).is_none(), "{place}");
        }
        for rubbish in ["", "A", "AAAA", "é", &text[..text.len() - 2], &format!("{text}AA"), &"A".repeat(43)] {
            assert!(StreamToken::open(rubbish, &key(1), now).is_none(), "{rubbish}");
        }
    }

    #[test]
    fn what_is_signed_but_no_ticket_is_none() {
        let now = at("10:00:00");
        let mut bytes = vec![VERSION, b't'];
        bytes.extend([0; 32]);
        bytes.extend(at("11:00:00").as_micros().to_be_bytes());
        let opens = |message: &[u8]| {
            let sealed = [message, &key(1).sign(message)].concat();
            StreamToken::open(&URL_SAFE_NO_PAD.encode(sealed), &key(1), now).is_some()
        };
        assert!(opens(&bytes));
        for end in 0..bytes.len() {
            assert!(!opens(&bytes[..end]), "{end}");
        }
        assert!(!opens(&[&bytes[..], &[0]].concat()) && opens(&[&bytes[..], &[0; 16]].concat()));
        for (place, byte) in [(0, 2), (1, b'x')] {
            let mut other = bytes.clone();
            other[place] = byte;
            assert!(!opens(&other), "{place}");
        }
    }
}

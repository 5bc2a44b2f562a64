//! A made-up population whose names and e-mails recur as those of people do: a few often, most seldom.

use flags_domain::Instant;
use flags_store::users::UserRecord;
use flags_tests::{app::START_TIME, seed};
use rand::{RngExt as _, rngs::SmallRng, seq::IndexedRandom as _};
use uuid::Uuid;

const FREQUENT: [&str; 12] =
    ["James", "Mary", "John", "Anna", "Michael", "Laura", "William", "Zoe", "Peter", "Julia", "Jörg", "Müller"];
const SYLLABLES: [&str; 32] = [
    "an", "be", "ca", "do", "el", "fi", "ga", "ha", "in", "jo", "ka", "li", "ma", "ni", "ol", "pe", "ra", "sa", "ti",
    "ul", "vi", "wa", "xe", "yo", "zu", "mü", "bö", "sch", "ther", "ston", "berg", "mann",
];
const ENDINGS: [&str; 4] = [".com", ".org", ".de", ".io"];

/// Makes users, one after the other.
pub(crate) struct People {
    first: Vec<String>,
    last: Vec<String>,
    domains: Vec<String>,
}

impl People {
    pub(crate) fn new(random: &mut SmallRng) -> Self {
        let mut words = |count: usize, syllables: usize| -> Vec<String> {
            let word = |_| (0..syllables).map(|_| *SYLLABLES.choose(random).expect("syllables")).collect();
            (0..count).map(word).collect()
        };
        let mut first: Vec<_> = FREQUENT.iter().map(|name| (*name).to_owned()).collect();
        first.extend(words(800, 2).iter().map(|word| capital(word)));
        let last = words(20_000, 3).iter().map(|word| capital(word)).collect();
        let mut domains = vec!["example.com".to_owned(), "example.org".to_owned(), "mail.example.net".to_owned()];
        domains.extend(words(3_000, 3).into_iter().map(|word| ascii(&word)));
        for (number, domain) in domains.iter_mut().enumerate().skip(3) {
            domain.push_str(ENDINGS[number % ENDINGS.len()]);
        }
        Self { first, last, domains }
    }

    /// User number `number`.
    pub(crate) fn user(&self, random: &mut SmallRng, number: usize) -> UserRecord {
        let (first, last) = (seldom(random, &self.first, 4.0), seldom(random, &self.last, 30.0));
        let domain = seldom(random, &self.domains, 1.0);
        let (f, l) = (ascii(first), ascii(last));
        let local = match number % 10 {
            0..5 => format!("{f}.{l}{number}"),
            5..7 => format!("{}{l}{number}", &f[..1]),
            7..9 => format!("{l}_{f}{number}"),
            _ => format!("User{number}"),
        };
        let local = if number.is_multiple_of(97) { capital(&local) } else { local };
        let day = i64::try_from(number).expect("few") * 30_000_000 + random.random_range(0..1_000_000_000);
        let at = Instant::parse(START_TIME).expect("an instant").plus_micros(day);
        UserRecord {
            id: Uuid::from_u128(random.random()),
            display_name: (!number.is_multiple_of(12)).then(|| format!("{first} {last}")),
            ..seed::user_record(&format!("{local}@{domain}"), at)
        }
    }
}

/// One of them, the later the seldomer: the odds fall as `1 / (place + flatness)`.
fn seldom<'a>(random: &mut SmallRng, all: &'a [String], flatness: f64) -> &'a str {
    let count = all.len() as f64;
    let place = flatness * ((count + flatness) / flatness).powf(random.random::<f64>()) - flatness;
    &all[(place as usize).min(all.len() - 1)]
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn ascii(word: &str) -> String {
    word.to_lowercase().replace('ü', "ue").replace('ö', "oe")
}

//! Generates users whose names and e-mail domains have a realistic distribution: a few are frequent, most are rare.

use flags_domain::Instant;
use flags_store::users::UserRecord;
use flags_tests::{app::START_TIME, seed};
use rand::{RngExt as _, rngs::SmallRng, seq::IndexedRandom as _};
use uuid::Uuid;

const FREQUENT_FIRST_NAMES: [&str; 12] =
    ["James", "Mary", "John", "Anna", "Michael", "Laura", "William", "Zoe", "Peter", "Julia", "Jörg", "Müller"];
const SYLLABLES: [&str; 32] = [
    "an", "be", "ca", "do", "el", "fi", "ga", "ha", "in", "jo", "ka", "li", "ma", "ni", "ol", "pe", "ra", "sa", "ti",
    "ul", "vi", "wa", "xe", "yo", "zu", "mü", "bö", "sch", "ther", "ston", "berg", "mann",
];
const TOP_LEVEL_DOMAINS: [&str; 4] = [".com", ".org", ".de", ".io"];

/// Names and domains from which users are generated, the most frequent first.
pub(crate) struct Population {
    first_names: Vec<String>,
    last_names: Vec<String>,
    domains: Vec<String>,
}

impl Population {
    pub(crate) fn new(rng: &mut SmallRng) -> Self {
        let mut random_words = |count: usize, syllables: usize| -> Vec<String> {
            let random_word = |_| (0..syllables).map(|_| *SYLLABLES.choose(rng).expect("list is not empty")).collect();
            (0..count).map(random_word).collect()
        };
        let mut first_names: Vec<_> = FREQUENT_FIRST_NAMES.iter().map(|name| (*name).to_owned()).collect();
        first_names.extend(random_words(800, 2).iter().map(|word| capitalize(word)));
        let last_names = random_words(20_000, 3).iter().map(|word| capitalize(word)).collect();
        let mut domains = vec!["example.com".to_owned(), "example.org".to_owned(), "mail.example.net".to_owned()];
        domains.extend(random_words(3_000, 3).into_iter().map(|word| to_ascii(&word)));
        for (number, domain) in domains.iter_mut().enumerate().skip(3) {
            domain.push_str(TOP_LEVEL_DOMAINS[number % TOP_LEVEL_DOMAINS.len()]);
        }
        Self { first_names, last_names, domains }
    }

    /// Generates a user. The number is part of the e-mail address, which makes it unique.
    pub(crate) fn generate_user(&self, rng: &mut SmallRng, number: usize) -> UserRecord {
        let (first, last) = (choose_skewed(rng, &self.first_names, 4.0), choose_skewed(rng, &self.last_names, 30.0));
        let domain = choose_skewed(rng, &self.domains, 1.0);
        let (f, l) = (to_ascii(first), to_ascii(last));
        let local_part = match number % 10 {
            0..5 => format!("{f}.{l}{number}"),
            5..7 => format!("{}{l}{number}", &f[..1]),
            7..9 => format!("{l}_{f}{number}"),
            _ => format!("User{number}"),
        };
        let local_part = if number.is_multiple_of(97) { capitalize(&local_part) } else { local_part };
        // Users are created 30 seconds apart on average, not exactly in the order of their numbers.
        let average_offset = i64::try_from(number).expect("number fits into i64") * 30_000_000;
        let offset_micros = average_offset + rng.random_range(0..1_000_000_000);
        let created_at = Instant::parse(START_TIME).expect("instant is valid").plus_micros(offset_micros);
        UserRecord {
            id: Uuid::from_u128(rng.random()),
            display_name: (!number.is_multiple_of(12)).then(|| format!("{first} {last}")),
            ..seed::user_record(&format!("{local_part}@{domain}"), created_at)
        }
    }
}

/// Chooses an item. The probability of an item is proportional to `1 / (index + flatness)`.
fn choose_skewed<'a>(rng: &mut SmallRng, items: &'a [String], flatness: f64) -> &'a str {
    let count = items.len() as f64;
    let index = flatness * ((count + flatness) / flatness).powf(rng.random::<f64>()) - flatness;
    &items[(index as usize).min(items.len() - 1)]
}

fn capitalize(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn to_ascii(word: &str) -> String {
    word.to_lowercase().replace('ü', "ue").replace('ö', "oe")
}

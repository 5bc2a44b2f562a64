//! Searching users: what is found is what a look at everybody would find, and it is found by the index made for it.

use flags_domain::Instant;
use flags_store::{
    Store,
    users::{self, UserFilter, UserOrder, UserRecord},
};
use flags_tests::{
    app::{BEGINNING, TestApp, author},
    database::{Database, Kind, tamper},
    on_both_databases, seed,
};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng, seq::IndexedRandom as _};
use serde_json::json;

on_both_databases! {
    a_search_finds_what_a_look_at_everybody_finds,
    of_very_many_that_match_the_first_in_order_are_listed,
    the_search_index_is_used,
    the_search_index_follows_every_change_and_survives_vacuum,
    no_text_to_search_by_is_too_odd,
}

/// Few enough that parts recur; with all that means something to LIKE, to full-text search or to SQL.
const LETTERS: [&str; 21] = [
    "a",
    "b",
    "A",
    "B",
    "%",
    "_",
    "\\",
    "\"",
    "'",
    "*",
    "ü",
    "Ü",
    "ß",
    "İ",
    "Σ",
    "e\u{301}",
    "K",
    "\u{212a}",
    "𝒳",
    "\u{10ffff}",
    ".",
];

fn beginning() -> Instant {
    Instant::parse(BEGINNING).unwrap()
}

fn word(random: &mut SmallRng, letters: &[&str], length: std::ops::Range<usize>) -> String {
    let length = random.random_range(length);
    (0..length).map(|_| *letters.choose(random).unwrap()).collect()
}

/// A user of these letters; names have blanks and line feeds as well.
fn odd_user(random: &mut SmallRng, number: usize) -> UserRecord {
    let email = format!("{}@{}{number}", word(random, &LETTERS, 1..7), word(random, &LETTERS, 1..3));
    let of_names: Vec<_> = LETTERS.iter().copied().chain([" ", "\n"]).collect();
    let display_name = random.random_bool(0.8).then(|| word(random, &of_names, 0..9));
    // Several are made at the same instant.
    let at = beginning().plus_micros(random.random_range(0..50));
    UserRecord { display_name, ..seed::user(&email, at) }
}

/// What a user is found by.
fn texts(user: &UserRecord) -> [String; 2] {
    [user.email.to_lowercase(), user.display_name.as_deref().unwrap_or_default().to_lowercase()]
}

fn is_found(user: &UserRecord, text: &str) -> bool {
    let short = text.chars().count() < 3;
    texts(user).iter().any(|whole| if short { whole.starts_with(text) } else { whole.contains(text) })
}

/// Every page of a search, one after the other, as `(totals, ids)`.
async fn pages(store: &Store, text: &str, newest: bool, limit: u32) -> (i64, Vec<UserRecord>) {
    let filter = UserFilter { search: Some(text.to_owned()), has_overrides: None };
    let mut order = if newest { UserOrder::Newest(None) } else { UserOrder::Email(None) };
    let mut all: Vec<UserRecord> = Vec::new();
    loop {
        let page = users::list(&mut store.conn().await.unwrap(), &filter, order, limit).await.unwrap();
        assert!(page.items.len() <= limit as usize);
        all.extend(page.items);
        if !page.has_more {
            return (page.total, all);
        }
        let last = all.last().unwrap();
        order = if newest {
            UserOrder::Newest(Some((last.created_at, last.id)))
        } else {
            UserOrder::Email(Some((last.email.clone(), last.id)))
        };
    }
}

/// What the pages must hold.
fn expected(everybody: &[UserRecord], text: &str, newest: bool) -> Vec<UserRecord> {
    let mut found: Vec<_> = everybody.iter().filter(|user| is_found(user, text)).cloned().collect();
    if newest {
        found.sort_by_key(|user| (std::cmp::Reverse(user.created_at), user.id));
    } else {
        found.sort_by(|one, other| one.email.cmp(&other.email));
    }
    found
}

async fn compare(store: &Store, everybody: &[UserRecord], text: &str) {
    for newest in [false, true] {
        let expected = expected(everybody, text, newest);
        let (total, found) = pages(store, text, newest, 40).await;
        let brief = |users: &[UserRecord]| users.iter().map(texts).collect::<Vec<_>>();
        assert_eq!(brief(&found), brief(&expected), "{text:?}, newest: {newest}");
        assert_eq!(total, i64::try_from(expected.len()).unwrap(), "{text:?}");
    }
}

async fn a_search_finds_what_a_look_at_everybody_finds(kind: Kind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let mut random = SmallRng::seed_from_u64(7);
    let mut everybody: Vec<_> = (0..300).map(|number| odd_user(&mut random, number)).collect();
    let mut tx = store.begin(beginning()).await.unwrap();
    for user in &everybody {
        assert!(users::insert(&mut tx, user).await.unwrap());
    }
    tx.commit(&author()).await.unwrap();
    for round in 0..2 {
        for _ in 0..150 {
            // A piece of what somebody has, or letters that nobody needs to have.
            let text = if random.random_bool(0.7) {
                let whole = everybody.choose(&mut random).unwrap();
                let letters: Vec<_> = texts(whole).join("\n").chars().collect();
                let from = random.random_range(0..letters.len());
                letters[from..].iter().take(random.random_range(1..7)).collect()
            } else {
                word(&mut random, &LETTERS, 1..5).to_lowercase()
            };
            compare(&store, &everybody, &text).await;
        }
        if round == 0 {
            change_some(&store, &mut everybody, &mut random).await;
        }
    }
}

/// Changes a third of all users, and deletes some.
async fn change_some(store: &Store, everybody: &mut Vec<UserRecord>, random: &mut SmallRng) {
    let mut tx = store.begin(beginning()).await.unwrap();
    for (number, user) in everybody.iter_mut().take(100).enumerate() {
        let after = UserRecord { id: user.id, created_at: user.created_at, ..odd_user(random, 1_000 + number) };
        users::update(&mut tx, user, &after).await.unwrap();
        *user = after;
    }
    for gone in everybody.split_off(270) {
        users::delete(&mut tx, &gone).await.unwrap();
    }
    tx.commit(&author()).await.unwrap();
}

/// 11,000 users in the first half of the alphabet and 10,600 at its end, the latter made first.
fn lopsided() -> Vec<UserRecord> {
    let user = |number: usize| {
        let (email, name) = if number < 10_600 {
            (format!("zed{number:05}@example.com"), "Quin")
        } else {
            (format!("Mia{number:05}@example.com"), if number.is_multiple_of(2) { "Zoe" } else { "Amy" })
        };
        let at = beginning().plus_micros(i64::try_from(number / 3).unwrap());
        UserRecord { display_name: Some(name.to_owned()), ..seed::user(&email, at) }
    };
    (0..21_600).map(user).collect()
}

async fn of_very_many_that_match_the_first_in_order_are_listed(kind: Kind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let everybody = lopsided();
    seed::users_in_bulk(&database.url, everybody.iter().cloned()).await;
    // All, half of them, those at the far end of either order, and the same by one and two letters.
    for text in ["example.com", "mia", "zed", "quin", "z", "ze", "m", "q", "qu", "zo"] {
        for newest in [false, true] {
            let expected = expected(&everybody, text, newest);
            let filter = UserFilter { search: Some(text.to_owned()), has_overrides: None };
            for skipped in [0, 5_000] {
                let Some(rest) = expected.get(skipped..).filter(|rest| !rest.is_empty()) else { continue };
                let last = skipped.checked_sub(1).map(|last| &expected[last]);
                let order = if newest {
                    UserOrder::Newest(last.map(|last| (last.created_at, last.id)))
                } else {
                    UserOrder::Email(last.map(|last| (last.email.clone(), last.id)))
                };
                let page = users::list(&mut store.conn().await.unwrap(), &filter, order, 30).await.unwrap();
                let emails = |users: &[UserRecord]| users.iter().map(|user| user.email.clone()).collect::<Vec<_>>();
                assert_eq!(emails(&page.items), emails(&rest[..30]), "{text} after {skipped}, newest: {newest}");
                assert_eq!(page.total, i64::try_from(expected.len().min(10_001)).unwrap(), "{text}");
                assert!(page.has_more);
            }
        }
    }
}

async fn the_search_index_is_used(kind: Kind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    seed::users_in_bulk(&database.url, lopsided()).await;
    tamper(&database.url, "ANALYZE").await;
    let plans = async |text: &str, order: UserOrder| {
        let filter = UserFilter { search: Some(text.to_owned()), has_overrides: None };
        let mut conn = store.conn().await.unwrap();
        users::plans(&mut conn, &filter, order, 50).await.unwrap().join("\n")
    };
    // SQLite counts first, by the same index.
    let (index, times) = match kind {
        Kind::Sqlite => ("users_search VIRTUAL TABLE INDEX", 2),
        Kind::Postgres => ("Index Scan on idx_users_search", 1),
    };
    for order in [UserOrder::Email(None), UserOrder::Newest(None)] {
        for text in ["mia2000", "ed00123@", "nobody", "0.c"] {
            let plans = plans(text, order.clone()).await;
            assert_eq!(plans.matches(index).count(), times, "{text}: {plans}");
            assert!(!plans.contains("Seq Scan") && !plans.contains("SCAN users\n"), "{text}: {plans}");
        }
        let beginnings = plans("z", order).await;
        for index in ["users_email_key", "idx_users_name_start"] {
            // SQLite has no name for the index of a constraint.
            let index =
                if kind == Kind::Sqlite { index.replace("users_email_key", "email_key>") } else { index.into() };
            assert!(beginnings.contains(&index), "{index}: {beginnings}");
        }
    }
}

async fn the_search_index_follows_every_change_and_survives_vacuum(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (ann, _) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    app.user("cid").await;
    let found = async |text: &str| {
        let page = app.admin.get(&format!("/api/admin/users?search={text}")).await.expect(200).json();
        page["items"].as_array().unwrap().iter().map(|user| user["email"].clone()).collect::<Vec<_>>()
    };
    app.admin.delete(&format!("/api/admin/users/{ann}")).await.expect(204);
    // Ben's row is now the first, and gets another place.
    tamper(&app.database.url, "VACUUM").await;
    app.user("dan").await;
    let path = format!("/api/admin/users/{ben}");
    app.admin.patch(&path, &json!({"email": "benno@example.com", "display_name": "Cidre"})).await.expect(200);
    app.admin.patch(&path, &json!({"role": "viewer"})).await.expect(200);
    assert_eq!(found("ann").await, [""; 0]);
    assert_eq!(found("ben@").await, [""; 0]);
    assert_eq!(found("cid").await, ["benno@example.com", "cid@example.com"]);
    assert_eq!(found("dan").await, ["dan@example.com"]);
    if kind == Kind::Sqlite {
        // Compares the index with the texts, and fails if they differ.
        let check = "INSERT INTO users_search(users_search, rank) VALUES ('integrity-check', 1)";
        tamper(&app.database.url, check).await;
    }
}

async fn no_text_to_search_by_is_too_odd(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.user("ann").await;
    let users = async |text: &str| {
        let text: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        app.admin.get(&format!("/api/admin/users?search={text}")).await.expect(200).json()["total"].clone()
    };
    let many = |text: &str| text.repeat(255 / text.chars().count());
    for text in
        ["\"", "\"\"\"", "ann\"", "\" OR \"", "a*", "ann*", "^ann", "ann AND", "NEAR(", "{a b}:", "-ann", "%%%", "___"]
    {
        assert_eq!(users(text).await, 0, "{text}");
    }
    for text in
        ["\\\\\\", "';--", "𝒳𝒳𝒳", "\u{301}\u{301}\u{301}", "\n\n\n", "\u{fffd}", "İİİ", "\u{10ffff}", "\u{d7ff}"]
    {
        assert_eq!(users(text).await, 0, "{text:?}");
        assert_eq!(users(&many(text)).await, 0, "{text:?}");
    }
    assert_eq!(users(&many("ann@")).await, 0);
    assert_eq!(users("NN@EXAMPLE.C").await, 1);
}

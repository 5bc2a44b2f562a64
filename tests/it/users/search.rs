//! User search: results equal those of a full scan, and queries use the search index.

use std::{cmp::Reverse, ops::Range};

use flags_domain::{Instant, email_search_forms, search_form};
use flags_store::{
    Store,
    users::{self, UserFilter, UserOrder, UserRecord},
};
use flags_tests::{
    app::{START_TIME, TestApp, author},
    database::{Database, DatabaseKind, execute_raw},
    on_both_databases, seed,
};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng, seq::IndexedRandom as _};
use serde_json::json;

use super::USERS_PATH;

on_both_databases! {
    search_returns_the_same_users_as_a_full_scan,
    large_search_results_are_listed_in_order,
    search_uses_the_index,
    search_index_follows_every_change_and_survives_vacuum,
    search_takes_special_characters_literally,
    search_ignores_case_unicode_composition_and_domain_encoding,
}

/// Alphabet of the random texts: small enough that substrings recur. It includes characters that are special in LIKE,
/// full-text search and SQL, and characters whose case mapping is unusual.
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

fn start_time() -> Instant {
    Instant::parse(START_TIME).unwrap()
}

fn random_word(random: &mut SmallRng, letters: &[&str], length: Range<usize>) -> String {
    let length = random.random_range(length);
    (0..length).map(|_| *letters.choose(random).unwrap()).collect()
}

/// Returns a user whose e-mail, external id and name are random; names also contain spaces and line feeds.
fn random_user(random: &mut SmallRng, number: usize) -> UserRecord {
    let email = format!("{}@{}{number}", random_word(random, &LETTERS, 1..7), random_word(random, &LETTERS, 1..3));
    let name_letters: Vec<_> = LETTERS.iter().copied().chain([" ", "\n"]).collect();
    let display_name = random.random_bool(0.8).then(|| random_word(random, &name_letters, 0..9));
    // Some users share a creation time, so the sort order depends on the tie-breaker.
    let at = start_time().plus_micros(random.random_range(0..50));
    let user = UserRecord { display_name, ..seed::user_record(&email, at) };
    if random.random_bool(0.6) {
        return user;
    }
    let external_id = Some(format!("{}{number}", random_word(random, &LETTERS, 1..6)));
    let email = user.email.filter(|_| random.random_bool(0.5));
    UserRecord { email, external_id, ..user }
}

/// Returns the handle and the display name in their search form.
fn handle_and_name(user: &UserRecord) -> [String; 2] {
    [search_form(user.handle()), search_form(user.display_name.as_deref().unwrap_or_default())]
}

/// Returns all texts of a user that searches find.
fn searched_texts(user: &UserRecord) -> Vec<String> {
    let emails = user.email.iter().flat_map(|email| email_search_forms(email));
    emails.chain(user.external_id.as_deref().map(search_form)).chain(handle_and_name(user)).collect()
}

/// Reference implementation of the search: terms of one or two characters match the start of the handle or the name,
/// longer terms match any part.
fn is_match(user: &UserRecord, text: &str) -> bool {
    if text.chars().count() < 3 {
        return handle_and_name(user).iter().any(|candidate| candidate.starts_with(text));
    }
    searched_texts(user).iter().any(|candidate| candidate.contains(text))
}

/// Returns the reported total and the users of all pages.
async fn fetch_all_pages(store: &Store, text: &str, newest_first: bool, limit: u32) -> (i64, Vec<UserRecord>) {
    let filter = UserFilter { search: Some(text.to_owned()), ..UserFilter::default() };
    let mut order = if newest_first { UserOrder::Newest(None) } else { UserOrder::Handle(None) };
    let mut all: Vec<UserRecord> = Vec::new();
    loop {
        let page = users::list(&mut store.conn().await.unwrap(), &filter, order, limit).await.unwrap();
        assert!(page.items.len() <= limit as usize);
        all.extend(page.items);
        if !page.has_more {
            return (page.total, all);
        }
        let last = all.last().unwrap();
        order = if newest_first {
            UserOrder::Newest(Some((last.created_at, last.id)))
        } else {
            UserOrder::Handle(Some((last.handle().to_owned(), last.id)))
        };
    }
}

/// Returns the users that all pages together must contain, in order.
fn expected_matches(all_users: &[UserRecord], text: &str, newest_first: bool) -> Vec<UserRecord> {
    let mut found: Vec<_> = all_users.iter().filter(|user| is_match(user, text)).cloned().collect();
    if newest_first {
        found.sort_by_key(|user| (Reverse(user.created_at), user.id));
    } else {
        found.sort_by(|a, b| a.handle().cmp(b.handle()));
    }
    found
}

async fn assert_search_matches_scan(store: &Store, all_users: &[UserRecord], text: &str) {
    for newest_first in [false, true] {
        let expected = expected_matches(all_users, text, newest_first);
        let (total, found) = fetch_all_pages(store, text, newest_first, 40).await;
        let text_pairs = |users: &[UserRecord]| users.iter().map(handle_and_name).collect::<Vec<_>>();
        assert_eq!(text_pairs(&found), text_pairs(&expected), "{text:?}, newest first: {newest_first}");
        assert_eq!(total, i64::try_from(expected.len()).unwrap(), "{text:?}");
    }
}

async fn search_returns_the_same_users_as_a_full_scan(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let mut random = SmallRng::seed_from_u64(7);
    let mut all_users: Vec<_> = (0..300).map(|number| random_user(&mut random, number)).collect();
    let mut tx = store.begin(start_time()).await.unwrap();
    for user in &all_users {
        assert_eq!(users::insert(&mut tx, user).await.unwrap(), None);
    }
    tx.commit(&author()).await.unwrap();
    for round in 0..2 {
        for _ in 0..150 {
            // Either a substring of a user's texts or random letters, which usually match no user.
            let text = if random.random_bool(0.7) {
                let user = all_users.choose(&mut random).unwrap();
                // Terms across two texts match no user, unless they are part of a name.
                let separator = ["\n", "\u{1f}"].choose(&mut random).unwrap();
                let letters: Vec<_> = searched_texts(user).join(separator).chars().collect();
                let from = random.random_range(0..letters.len());
                letters[from..].iter().take(random.random_range(1..7)).collect()
            } else {
                search_form(&random_word(&mut random, &LETTERS, 1..5))
            };
            assert_search_matches_scan(&store, &all_users, &text).await;
        }
        if round == 0 {
            change_some_users(&store, &mut all_users, &mut random).await;
        }
    }
}

/// Changes the first 100 users and deletes those after the 270th.
async fn change_some_users(store: &Store, all_users: &mut Vec<UserRecord>, random: &mut SmallRng) {
    let mut tx = store.begin(start_time()).await.unwrap();
    for (number, user) in all_users.iter_mut().take(100).enumerate() {
        let after = UserRecord { id: user.id, created_at: user.created_at, ..random_user(random, 1_000 + number) };
        assert_eq!(users::update(&mut tx, user, &after).await.unwrap(), None);
        *user = after;
    }
    for deleted in all_users.split_off(270) {
        users::delete(&mut tx, &deleted).await.unwrap();
    }
    tx.commit(&author()).await.unwrap();
}

/// Returns 10,600 users whose e-mail begins with "zed", then 11,000 created later whose e-mail begins with "Mia".
fn skewed_users() -> Vec<UserRecord> {
    let user = |number: usize| {
        let (email, name) = if number < 10_600 {
            (format!("zed{number:05}@example.com"), "Quin")
        } else {
            (format!("Mia{number:05}@example.com"), if number.is_multiple_of(2) { "Zoe" } else { "Amy" })
        };
        let at = start_time().plus_micros(i64::try_from(number / 3).unwrap());
        UserRecord { display_name: Some(name.to_owned()), ..seed::user_record(&email, at) }
    };
    (0..21_600).map(user).collect()
}

async fn large_search_results_are_listed_in_order(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let all_users = skewed_users();
    seed::bulk_insert_users(&database.url, all_users.iter().cloned()).await;
    // Terms that match all users, half of them, or only those at the end of a sort order. Some have one or two letters.
    for text in ["example.com", "mia", "zed", "quin", "z", "ze", "m", "q", "qu", "zo"] {
        for newest_first in [false, true] {
            let expected = expected_matches(&all_users, text, newest_first);
            let filter = UserFilter { search: Some(text.to_owned()), ..UserFilter::default() };
            for skipped in [0, 5_000] {
                let Some(rest) = expected.get(skipped..).filter(|rest| !rest.is_empty()) else { continue };
                let last = skipped.checked_sub(1).map(|last| &expected[last]);
                let order = if newest_first {
                    UserOrder::Newest(last.map(|last| (last.created_at, last.id)))
                } else {
                    UserOrder::Handle(last.map(|last| (last.handle().to_owned(), last.id)))
                };
                let page = users::list(&mut store.conn().await.unwrap(), &filter, order, 30).await.unwrap();
                let emails = |users: &[UserRecord]| users.iter().map(|user| user.email.clone()).collect::<Vec<_>>();
                assert_eq!(
                    emails(&page.items),
                    emails(&rest[..30]),
                    "{text} after {skipped}, newest first: {newest_first}"
                );
                assert_eq!(page.total, i64::try_from(expected.len().min(10_001)).unwrap(), "{text}");
                assert!(page.has_more);
            }
        }
    }
}

async fn search_uses_the_index(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    seed::bulk_insert_users(&database.url, skewed_users()).await;
    execute_raw(&database.url, "ANALYZE").await;
    let plans = async |text: &str, order: UserOrder| {
        let filter = UserFilter { search: Some(text.to_owned()), ..UserFilter::default() };
        let mut conn = store.conn().await.unwrap();
        users::explain(&mut conn, &filter, order, 50).await.unwrap().join("\n")
    };
    // SQLite runs a separate count query, which uses the same index.
    let (index, occurrences) = match kind {
        DatabaseKind::Sqlite => ("users_search VIRTUAL TABLE INDEX", 2),
        DatabaseKind::Postgres => ("Index Scan on idx_users_search", 1),
    };
    for order in [UserOrder::Handle(None), UserOrder::Newest(None)] {
        for text in ["mia2000", "ed00123@", "unknown", "0.c"] {
            let plans = plans(text, order.clone()).await;
            assert_eq!(plans.matches(index).count(), occurrences, "{text}: {plans}");
            assert!(!plans.contains("Seq Scan") && !plans.contains("SCAN users\n"), "{text}: {plans}");
        }
        let prefix_plan = plans("z", order).await;
        for index in ["users_handle_key", "idx_users_name_start"] {
            // SQLite does not name the index of a constraint in its query plan.
            let index = if kind == DatabaseKind::Sqlite {
                index.replace("users_handle_key", "handle_key>")
            } else {
                index.into()
            };
            assert!(prefix_plan.contains(&index), "{index}: {prefix_plan}");
        }
    }
}

async fn search_index_follows_every_change_and_survives_vacuum(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    app.create_user("cid").await;
    let emails = async |text: &str| {
        let page = app.admin.get(&format!("{USERS_PATH}?search={text}")).await.expect(200).json();
        page["items"].as_array().unwrap().iter().map(|user| user["email"].clone()).collect::<Vec<_>>()
    };
    app.admin.delete(&format!("{USERS_PATH}/{ann_id}")).await.expect(204);
    // After Ann's deletion, VACUUM may give the remaining rows new rowids.
    execute_raw(&app.database.url, "VACUUM").await;
    app.create_user("dan").await;
    let path = format!("{USERS_PATH}/{ben_id}");
    app.admin.patch(&path, &json!({"email": "benno@example.com", "display_name": "Cidre"})).await.expect(200);
    app.admin.patch(&path, &json!({"role": "viewer"})).await.expect(200);
    assert_eq!(emails("ann").await, [""; 0]);
    assert_eq!(emails("ben@").await, [""; 0]);
    assert_eq!(emails("cid").await, ["benno@example.com", "cid@example.com"]);
    assert_eq!(emails("dan").await, ["dan@example.com"]);
    if kind == DatabaseKind::Sqlite {
        // Fails if the index does not match the indexed table.
        let check = "INSERT INTO users_search(users_search, rank) VALUES ('integrity-check', 1)";
        execute_raw(&app.database.url, check).await;
    }
}

async fn search_ignores_case_unicode_composition_and_domain_encoding(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let create =
        async |body: serde_json::Value| app.admin.post(USERS_PATH, &body).await.expect(201).json()["id"].clone();
    let rene = create(json!({"email": "Rene\u{301}@M\u{fc}nchen.example", "external_id": "crm\u{e9}/7"})).await;
    let elan = create(json!({"email": "x@example.com", "display_name": "E\u{301}lan"})).await;
    let okra = create(json!({"external_id": "O\u{308}kra"})).await;
    for (text, id) in [
        ("ren\u{e9}@", &rene),
        ("RENE\u{301}@m\u{fc}n", &rene),
        ("xn--mnchen", &rene),
        ("crme\u{301}/", &rene),
        ("\u{e9}l", &elan),
        ("E\u{301}LAN", &elan),
        ("\u{f6}", &okra),
        ("o\u{308}kr", &okra),
    ] {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for sort in ["email", "-created_at"] {
            let page = app.admin.get(&format!("{USERS_PATH}?search={encoded}&sort={sort}")).await.expect(200).json();
            let ids: Vec<_> = page["items"].as_array().unwrap().iter().map(|user| &user["id"]).collect();
            assert_eq!(ids, [id], "{text:?} {sort}");
        }
    }
    // A composed letter such as `ö` does not match a search for the letter alone.
    assert_eq!(app.admin.get(&format!("{USERS_PATH}?search=o")).await.expect(200).json()["total"], 0);
}

async fn search_takes_special_characters_literally(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_user("ann").await;
    let count_matches = async |text: &str| {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        app.admin.get(&format!("{USERS_PATH}?search={encoded}")).await.expect(200).json()["total"].clone()
    };
    let repeat_to_maximum_length = |text: &str| text.repeat(255 / text.chars().count());
    for text in
        ["\"", "\"\"\"", "ann\"", "\" OR \"", "a*", "ann*", "^ann", "ann AND", "NEAR(", "{a b}:", "-ann", "%%%", "___"]
    {
        assert_eq!(count_matches(text).await, 0, "{text}");
    }
    for text in
        ["\\\\\\", "';--", "𝒳𝒳𝒳", "\u{301}\u{301}\u{301}", "\n\n\n", "\u{fffd}", "İİİ", "\u{10ffff}", "\u{d7ff}"]
    {
        assert_eq!(count_matches(text).await, 0, "{text:?}");
        assert_eq!(count_matches(&repeat_to_maximum_length(text)).await, 0, "{text:?}");
    }
    assert_eq!(count_matches(&repeat_to_maximum_length("ann@")).await, 0);
    assert_eq!(count_matches("NN@EXAMPLE.C").await, 1);
}

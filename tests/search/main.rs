//! How long searches for users take beside very many, on both databases: `just bench-search`.
//!
//! Terms are pieces of what users have, sorted into kinds by how many they find. Beside each kind stands what a plain `LIKE`
//! over all users takes for the same terms.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]

mod people;

use std::{collections::BTreeMap, time::Instant};

use clap::Parser;
use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection, connection::SimpleConnection as _, sql_query};
use flags_store::{
    MAX_TOTAL, Store,
    users::{self, UserFilter, UserOrder, UserRecord},
};
use flags_tests::{
    app::author,
    cluster::Cluster,
    database::{DatabaseKind, create_database, execute_postgres, execute_raw, query_postgres},
    seed,
};
use people::People;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

#[derive(Parser)]
struct Args {
    /// How many users there are.
    #[arg(long, default_value_t = 1_000_000)]
    users: usize,
    /// How many terms of each kind are searched for.
    #[arg(long, default_value_t = 200)]
    terms: usize,
    /// How many of them are searched for by a plain scan as well.
    #[arg(long, default_value_t = 5)]
    scans: usize,
    /// Given by cargo to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Terms by kind.
type Terms = BTreeMap<&'static str, Vec<String>>;

const KINDS: [&str; 9] = [
    "part, anonymous has it",
    "part, of up to 100",
    "part, of up to 10,000",
    "part, of more",
    "part, of more that come late",
    "whole e-mail",
    "beginning, of up to 10,000",
    "beginning, of more",
    "part, of nearly everybody",
];

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let folder = tempfile::TempDir::with_prefix("flags-search-").expect("a temporary folder");
    let file = format!("sqlite://{}", folder.path().join("flags.db").display());
    run(DatabaseKind::Sqlite, &file, &args).await;
    // With the settings of a new installation.
    let cluster = Cluster::start(&[]);
    let url = create_database(&cluster, "template0").await;
    run(DatabaseKind::Postgres, &url, &args).await;
}

async fn run(kind: DatabaseKind, url: &str, args: &Args) {
    println!("\n== {kind:?}, {} users", args.users);
    let store = Store::open(&url.parse().expect("a URL")).await.expect("the database opens");
    store.migrate().await.expect("migrations apply");
    let mut random = SmallRng::seed_from_u64(1);
    let people = People::new(&mut random);
    let sample = fill(kind, url, &people, &mut random, args.users).await;
    let terms = collect(&store, &sample, &mut random, args.terms).await;
    show_plans(&store, &terms).await;
    println!(
        "\n{:<30} {:>5} {:>11} {:>4} {:>8} {:>8} {:>8} {:>9}",
        "milliseconds for", "terms", "order", "page", "median", "p99", "max", "scan"
    );
    for kind_of_term in KINDS {
        let Some(terms) = terms.get(kind_of_term) else { continue };
        for newest in [false, true] {
            let [first, second] = measure(&store, terms, newest).await;
            let scan = median(scans(kind, url, &terms[..terms.len().min(args.scans)], newest).await);
            // What nobody has has no second page.
            for (page, times) in [(1, first), (2, second)].into_iter().filter(|(_, times)| !times.is_empty()) {
                show(kind_of_term, if newest { "-created_at" } else { "email" }, page, times, scan);
            }
        }
    }
    measure_inserts(kind, url, &store, &mut random, args.users).await;
}

/// Puts in the users, and returns every thousandth.
async fn fill(kind: DatabaseKind, url: &str, people: &People, random: &mut SmallRng, count: usize) -> Vec<UserRecord> {
    let begun = Instant::now();
    let mut sample = Vec::new();
    let definition = "SELECT indexdef FROM pg_indexes WHERE indexname = 'idx_users_search'";
    let index = if kind == DatabaseKind::Postgres { query_postgres(url, definition).await.remove(0) } else { None };
    if index.is_some() {
        execute_postgres(url, "SET synchronous_commit = off; DROP INDEX idx_users_search").await;
    }
    let all = (0..count).map(|number| {
        let user = people.user(random, number);
        if number % 1_000 == 0 {
            sample.push(user.clone());
        }
        user
    });
    seed::bulk_insert_users(url, all).await;
    println!("{:.0} s to put them in", begun.elapsed().as_secs_f64());
    if let Some(index) = index {
        let begun = Instant::now();
        execute_postgres(url, &index).await;
        execute_postgres(url, "VACUUM ANALYZE users").await;
        println!("{:.0} s to make the search index of them", begun.elapsed().as_secs_f64());
        let sizes = "SELECT string_agg(c.relname || ' ' || pg_relation_size(c.oid) / 1000000 || ' MB', ', ')
                     FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
                     WHERE 'users'::regclass IN (c.oid, i.indrelid)";
        println!("{}", query_postgres(url, sizes).await.remove(0).unwrap_or_default());
    } else {
        let file = std::fs::metadata(url.trim_start_matches("sqlite://")).expect("a file");
        println!("{} MB of file", file.len() / 1_000_000);
    }
    sample
}

/// What it takes to make users, one a transaction, with the migration for searches and without it.
async fn measure_inserts(kind: DatabaseKind, url: &str, store: &Store, random: &mut SmallRng, from: usize) {
    let people = People::new(random);
    let mut medians = Vec::new();
    for round in 0..2 {
        if round == 1 {
            let down = match kind {
                DatabaseKind::Postgres => include_str!("../../migrations/postgres/00000000000003_user_search/down.sql"),
                DatabaseKind::Sqlite => include_str!("../../migrations/sqlite/00000000000003_user_search/down.sql"),
            };
            execute_raw(url, down).await;
        }
        let mut times = Vec::new();
        for number in 0..1_000 {
            let user = people.user(random, from + round * 1_000 + number);
            let begun = Instant::now();
            let mut tx = store.begin(user.created_at).await.expect("a transaction");
            assert!(users::insert(&mut tx, &user).await.expect("an insert"));
            tx.commit(&author()).await.expect("a commit");
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        medians.push(median(times));
    }
    println!("\nmilliseconds to make a user: {:.2}, without what searches need {:.2}", medians[0], medians[1]);
}

/// Pieces of what users have, by kind. What a term finds tells its kind.
async fn collect(store: &Store, sample: &[UserRecord], random: &mut SmallRng, wanted: usize) -> Terms {
    let mut terms = Terms::new();
    for tries in 0..wanted * 12 {
        let user = &sample[random.random_range(0..sample.len())];
        let whole = [user.email.as_str(), user.display_name.as_deref().unwrap_or("none")][tries % 2].to_lowercase();
        let letters: Vec<char> = whole.chars().collect();
        let begins = tries % 4 < 2;
        let (from, length) = if begins {
            (0, random.random_range(1..3))
        } else {
            (random.random_range(0..letters.len()), random.random_range(3..9))
        };
        let text: String = letters.iter().skip(from).take(length).collect();
        let begins = text.chars().count() < 3;
        let total = search(store, &text, UserOrder::Email(None)).await.0;
        let kind = match (begins, total) {
            (true, ..=MAX_TOTAL) => KINDS[6],
            (true, _) => KINDS[7],
            (false, ..=100) => KINDS[1],
            (false, ..=MAX_TOTAL) => KINDS[2],
            (false, _) => KINDS[3],
        };
        let of_kind = terms.entry(kind).or_default();
        if of_kind.len() < wanted {
            of_kind.push(text);
        }
    }
    let emails = sample.iter().map(|user| user.email.to_lowercase());
    terms.insert(KINDS[0], emails.clone().take(wanted).map(|email| email.chars().rev().take(9).collect()).collect());
    terms.insert(KINDS[5], emails.take(wanted).collect());
    terms.insert(KINDS[8], ["example", ".com", "@ex", "ample.c"].iter().map(|part| (*part).to_owned()).collect());
    // Names that e-mails begin with: by e-mail they come all together, and not soon.
    terms.insert(KINDS[4], ["william", "zoe", "user", "zu", "peter"].iter().map(|name| (*name).to_owned()).collect());
    terms
}

/// The total, and where the next page begins.
async fn search(store: &Store, text: &str, order: UserOrder) -> (i64, Option<UserOrder>) {
    let filter = UserFilter { search: Some(text.to_owned()), has_overrides: None };
    let newest = matches!(order, UserOrder::Newest(_));
    let mut conn = store.conn().await.expect("a connection");
    let page = users::list(&mut conn, &filter, order, 50).await.expect("a list");
    let next = page.items.last().filter(|_| page.has_more).map(|last| {
        if newest {
            UserOrder::Newest(Some((last.created_at, last.id)))
        } else {
            UserOrder::Email(Some((last.email.clone(), last.id)))
        }
    });
    (page.total, next)
}

/// Milliseconds for the first and the second page of each.
async fn measure(store: &Store, terms: &[String], newest: bool) -> [Vec<f64>; 2] {
    let mut times = [Vec::new(), Vec::new()];
    for text in terms {
        let mut order = Some(if newest { UserOrder::Newest(None) } else { UserOrder::Email(None) });
        for times in &mut times {
            let Some(place) = order else { break };
            let begun = Instant::now();
            order = search(store, text, place).await.1;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    times
}

/// Milliseconds for the same by looking at everybody.
async fn scans(kind: DatabaseKind, url: &str, terms: &[String], newest: bool) -> Vec<f64> {
    let order = if newest { "created_at DESC, id" } else { "email" };
    let mut times = Vec::new();
    for text in terms {
        let text = text.replace('\'', "''").replace('_', "\\_");
        let condition = if text.chars().count() < 3 {
            format!("search_text LIKE '{text}%' ESCAPE '\\' OR search_text LIKE '%\n{text}%' ESCAPE '\\'")
        } else {
            format!("search_text LIKE '%{text}%' ESCAPE '\\'")
        };
        let count = format!("SELECT count(*) FROM (SELECT id FROM users WHERE {condition} LIMIT 10001) AS counted");
        let page = format!("SELECT email FROM users WHERE {condition} ORDER BY {order} LIMIT 51");
        if kind == DatabaseKind::Postgres {
            let begun = Instant::now();
            query_postgres(url, &count).await;
            query_postgres(url, &page).await;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        } else {
            let mut conn = SqliteConnection::establish(url.trim_start_matches("sqlite://")).expect("the file opens");
            conn.batch_execute("PRAGMA case_sensitive_like = ON").expect("a pragma");
            let begun = Instant::now();
            sql_query(count).execute(&mut conn).expect("a count");
            sql_query(page).execute(&mut conn).expect("a page");
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    times
}

async fn show_plans(store: &Store, terms: &Terms) {
    for kind in [KINDS[2], KINDS[3], KINDS[6], KINDS[7]] {
        let Some(text) = terms.get(kind).and_then(|terms| terms.first()) else { continue };
        println!("\n{kind}, {text:?}:");
        let filter = UserFilter { search: Some(text.clone()), has_overrides: None };
        let mut conn = store.conn().await.expect("a connection");
        let lines = users::explain(&mut conn, &filter, UserOrder::Email(None), 50).await.expect("plans");
        for line in lines {
            println!("    {line}");
        }
    }
}

fn show(kind: &str, order: &str, page: u8, mut times: Vec<f64>, scan: f64) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1)));
    let [median, p99, max] = [0.5, 0.99, 1.0].map(|share| at(share).copied().unwrap_or(f64::NAN));
    println!("{kind:<30} {:>5} {order:>11} {page:>4} {median:>8.1} {p99:>8.1} {max:>8.1} {scan:>9.1}", times.len());
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

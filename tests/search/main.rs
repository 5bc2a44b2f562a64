//! Benchmark of the user search with many users, on both databases. `just bench-search` runs it.
//!
//! Search terms are substrings of e-mails and names, grouped by the number of users that they match. For comparison,
//! the benchmark also measures a plain `LIKE` over all users for some terms of each group.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "measurements need no exact values"
)]

mod population;

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
use population::Population;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

#[derive(Parser)]
struct Args {
    /// Number of users
    #[arg(long, default_value_t = 1_000_000)]
    users: usize,
    /// Number of search terms per group
    #[arg(long, default_value_t = 200)]
    terms: usize,
    /// Number of search terms per group that are also measured with a full scan
    #[arg(long, default_value_t = 5)]
    scans: usize,
    /// Accepted and ignored: Cargo passes it to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// Search terms by group.
type Terms = BTreeMap<&'static str, Vec<String>>;

const GROUPS: [&str; 9] = [
    "substring, no match",
    "substring, up to 100",
    "substring, up to 10,000",
    "substring, more",
    "substring, more, late matches",
    "complete e-mail",
    "prefix, up to 10,000",
    "prefix, more",
    "substring, nearly all users",
];

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let folder = tempfile::TempDir::with_prefix("flags-search-").expect("temporary folder can be created");
    let url = format!("sqlite://{}", folder.path().join("flags.db").display());
    run(DatabaseKind::Sqlite, &url, &args).await;
    // A private cluster, because the shared one has durability switched off.
    let cluster = Cluster::start(&[]);
    let url = create_database(&cluster, "template0").await;
    run(DatabaseKind::Postgres, &url, &args).await;
}

async fn run(kind: DatabaseKind, url: &str, args: &Args) {
    println!("\n== {kind:?}, {} users", args.users);
    let store = Store::open(&url.parse().expect("database URL is valid")).await.expect("database can be opened");
    store.migrate().await.expect("migrations succeed");
    let mut rng = SmallRng::seed_from_u64(1);
    let population = Population::new(&mut rng);
    let sample = insert_users(kind, url, &population, &mut rng, args.users).await;
    let terms = choose_terms(&store, &sample, &mut rng, args.terms).await;
    print_plans(&store, &terms).await;
    println!(
        "\n{:<30} {:>5} {:>11} {:>4} {:>8} {:>8} {:>8} {:>9}",
        "milliseconds", "terms", "order", "page", "median", "p99", "max", "scan"
    );
    for group in GROUPS {
        let Some(terms) = terms.get(group) else { continue };
        for newest in [false, true] {
            let [first, second] = measure_searches(&store, terms, newest).await;
            let scan = median(measure_scans(kind, url, &terms[..terms.len().min(args.scans)], newest).await);
            // Terms without a match have no second page.
            for (page, times) in [(1, first), (2, second)].into_iter().filter(|(_, times)| !times.is_empty()) {
                print_row(group, if newest { "-created_at" } else { "email" }, page, times, scan);
            }
        }
    }
    measure_inserts(kind, url, &store, &mut rng, args.users).await;
}

/// Inserts the users and returns every thousandth of them. On PostgreSQL, the search index is created afterwards.
async fn insert_users(
    kind: DatabaseKind,
    url: &str,
    population: &Population,
    rng: &mut SmallRng,
    count: usize,
) -> Vec<UserRecord> {
    let started_at = Instant::now();
    let mut sample = Vec::new();
    let index_definition = match kind {
        DatabaseKind::Postgres => {
            let sql = "SELECT indexdef FROM pg_indexes WHERE indexname = 'idx_users_search'";
            query_postgres(url, sql).await.remove(0)
        }
        DatabaseKind::Sqlite => None,
    };
    if index_definition.is_some() {
        execute_postgres(url, "SET synchronous_commit = off; DROP INDEX idx_users_search").await;
    }
    let users = (0..count).map(|number| {
        let user = population.generate_user(rng, number);
        if number % 1_000 == 0 {
            sample.push(user.clone());
        }
        user
    });
    seed::bulk_insert_users(url, users).await;
    println!("{:.0} s to insert the users", started_at.elapsed().as_secs_f64());
    if let Some(index_definition) = index_definition {
        let started_at = Instant::now();
        execute_postgres(url, &index_definition).await;
        execute_postgres(url, "VACUUM ANALYZE users").await;
        println!("{:.0} s to create the search index", started_at.elapsed().as_secs_f64());
        let sizes = "SELECT string_agg(c.relname || ' ' || pg_relation_size(c.oid) / 1000000 || ' MB', ', ')
                     FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
                     WHERE 'users'::regclass IN (c.oid, i.indrelid)";
        println!("{}", query_postgres(url, sizes).await.remove(0).unwrap_or_default());
    } else {
        let metadata = std::fs::metadata(url.trim_start_matches("sqlite://")).expect("database file exists");
        println!("database file: {} MB", metadata.len() / 1_000_000);
    }
    sample
}

/// Measures the time to create a user, one per transaction, with and without the search index.
async fn measure_inserts(kind: DatabaseKind, url: &str, store: &Store, rng: &mut SmallRng, first_number: usize) {
    let population = Population::new(rng);
    let mut medians = Vec::new();
    for round in 0..2 {
        if round == 1 {
            let remove_index = match kind {
                DatabaseKind::Postgres => include_str!("../../migrations/postgres/00000000000003_user_search/down.sql"),
                DatabaseKind::Sqlite => include_str!("../../migrations/sqlite/00000000000003_user_search/down.sql"),
            };
            execute_raw(url, remove_index).await;
        }
        let mut times = Vec::new();
        for number in 0..1_000 {
            let user = population.generate_user(rng, first_number + round * 1_000 + number);
            let started_at = Instant::now();
            let mut tx = store.begin(user.created_at).await.expect("transaction can begin");
            assert_eq!(users::insert(&mut tx, &user).await.expect("user can be inserted"), None);
            tx.commit(&author()).await.expect("transaction can be committed");
            times.push(started_at.elapsed().as_secs_f64() * 1e3);
        }
        medians.push(median(times));
    }
    println!("\nmilliseconds to create a user: {:.2}, without the search index: {:.2}", medians[0], medians[1]);
}

/// Chooses substrings and prefixes of e-mails and names, and groups them by their number of matches.
async fn choose_terms(store: &Store, sample: &[UserRecord], rng: &mut SmallRng, terms_per_group: usize) -> Terms {
    let mut terms = Terms::new();
    for attempt in 0..terms_per_group * 12 {
        let user = &sample[rng.random_range(0..sample.len())];
        let text = [user.handle(), user.display_name.as_deref().unwrap_or("none")][attempt % 2].to_lowercase();
        let letters: Vec<char> = text.chars().collect();
        let (start, length) = if attempt % 4 < 2 {
            (0, rng.random_range(1..3))
        } else {
            (rng.random_range(0..letters.len()), rng.random_range(3..9))
        };
        let term: String = letters.iter().skip(start).take(length).collect();
        // The search treats terms of one or two characters as prefixes.
        let is_prefix = term.chars().count() < 3;
        let total = search(store, &term, UserOrder::Handle(None)).await.0;
        let group = match (is_prefix, total) {
            (true, ..=MAX_TOTAL) => GROUPS[6],
            (true, _) => GROUPS[7],
            (false, ..=100) => GROUPS[1],
            (false, ..=MAX_TOTAL) => GROUPS[2],
            (false, _) => GROUPS[3],
        };
        let group_terms = terms.entry(group).or_default();
        if group_terms.len() < terms_per_group {
            group_terms.push(term);
        }
    }
    let to_owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let emails = sample.iter().map(|user| user.handle().to_lowercase()).take(terms_per_group);
    terms.insert(GROUPS[0], emails.clone().map(|email| email.chars().rev().take(9).collect()).collect());
    terms.insert(GROUPS[5], emails.collect());
    terms.insert(GROUPS[8], to_owned(&["example", ".com", "@ex", "ample.c"]));
    // E-mails start with these names, so all matches are adjacent in the e-mail order, and far from its start.
    terms.insert(GROUPS[4], to_owned(&["william", "zoe", "user", "zu", "peter"]));
    terms
}

/// Returns the total and the position of the next page.
async fn search(store: &Store, term: &str, order: UserOrder) -> (i64, Option<UserOrder>) {
    let filter = UserFilter { search: Some(term.to_owned()), ..UserFilter::default() };
    let newest = matches!(order, UserOrder::Newest(_));
    let mut conn = store.conn().await.expect("a connection is available");
    let page = users::list(&mut conn, &filter, order, 50).await.expect("users can be listed");
    let next = page.items.last().filter(|_| page.has_more).map(|last| {
        if newest {
            UserOrder::Newest(Some((last.created_at, last.id)))
        } else {
            UserOrder::Handle(Some((last.handle().to_owned(), last.id)))
        }
    });
    (page.total, next)
}

/// Returns the times of the first and of the second page for each term, in milliseconds.
async fn measure_searches(store: &Store, terms: &[String], newest: bool) -> [Vec<f64>; 2] {
    let mut times = [Vec::new(), Vec::new()];
    for term in terms {
        let mut order = Some(if newest { UserOrder::Newest(None) } else { UserOrder::Handle(None) });
        for times in &mut times {
            let Some(position) = order else { break };
            let started_at = Instant::now();
            order = search(store, term, position).await.1;
            times.push(started_at.elapsed().as_secs_f64() * 1e3);
        }
    }
    times
}

/// Returns the time of an equivalent search with `LIKE` over all users for each term, in milliseconds.
async fn measure_scans(kind: DatabaseKind, url: &str, terms: &[String], newest: bool) -> Vec<f64> {
    let order = if newest { "created_at DESC, id" } else { "handle" };
    let mut times = Vec::new();
    for term in terms {
        let term = term.replace('\'', "''").replace('_', "\\_");
        let condition = if term.chars().count() < 3 {
            format!("search_text LIKE '{term}%' ESCAPE '\\' OR search_text LIKE '%\n{term}%' ESCAPE '\\'")
        } else {
            format!("search_text LIKE '%{term}%' ESCAPE '\\'")
        };
        let count = format!("SELECT count(*) FROM (SELECT id FROM users WHERE {condition} LIMIT 10001) AS counted");
        let page = format!("SELECT handle FROM users WHERE {condition} ORDER BY {order} LIMIT 51");
        if kind == DatabaseKind::Postgres {
            let started_at = Instant::now();
            query_postgres(url, &count).await;
            query_postgres(url, &page).await;
            times.push(started_at.elapsed().as_secs_f64() * 1e3);
        } else {
            let mut conn =
                SqliteConnection::establish(url.trim_start_matches("sqlite://")).expect("database can be opened");
            conn.batch_execute("PRAGMA case_sensitive_like = ON").expect("pragma can be set");
            let started_at = Instant::now();
            sql_query(count).execute(&mut conn).expect("count query succeeds");
            sql_query(page).execute(&mut conn).expect("page query succeeds");
            times.push(started_at.elapsed().as_secs_f64() * 1e3);
        }
    }
    times
}

async fn print_plans(store: &Store, terms: &Terms) {
    for group in [GROUPS[2], GROUPS[3], GROUPS[6], GROUPS[7]] {
        let Some(term) = terms.get(group).and_then(|terms| terms.first()) else { continue };
        println!("\n{group}, {term:?}:");
        let filter = UserFilter { search: Some(term.clone()), ..UserFilter::default() };
        let mut conn = store.conn().await.expect("a connection is available");
        let plans = users::explain(&mut conn, &filter, UserOrder::Handle(None), 50).await;
        for line in plans.expect("queries can be explained") {
            println!("    {line}");
        }
    }
}

fn print_row(group: &str, order: &str, page: u8, mut times: Vec<f64>, scan: f64) {
    times.sort_by(f64::total_cmp);
    let quantile = |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1)));
    let [median, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(share).copied().unwrap_or(f64::NAN));
    println!("{group:<30} {:>5} {order:>11} {page:>4} {median:>8.1} {p99:>8.1} {max:>8.1} {scan:>9.1}", times.len());
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

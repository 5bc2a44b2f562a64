//! News of other processes: heard at once, and not missed when nobody hears them.

use std::time::Duration;

use flags_service::replica::Replica;
use flags_store::Store;
use flags_tests::{
    app::{TestApp, author, override_at},
    database::{Database, Kind, execute, query, tamper, tamper_with_log},
    eventually, on_both_databases,
    proxy::{Fault, Proxy, Target},
    seed,
};
use serde_json::json;
use tokio::time::timeout;

on_both_databases! {
    a_listener_hears_commits_of_others,
    a_log_that_goes_back_begins_a_new_epoch,
    of_several_servers_one_ends_an_epoch,
    a_log_that_cannot_be_followed_is_loaded_anew,
    an_epoch_that_comes_back_is_ended_again,
    an_override_that_cannot_be_read_takes_no_other_down,
}

async fn commit(store: &Store, email: &str) {
    let mut tx = store.begin(flags_domain::Instant::from_micros(1)).await.unwrap();
    seed::insert_user(&mut tx, email).await;
    tx.commit(&author()).await.unwrap();
}

async fn a_listener_hears_commits_of_others(kind: Kind) {
    let database = Database::migrated(kind).await;
    let (one, two) = (database.store().await, database.store().await);
    let mut listener = one.listen().await.unwrap();
    assert!(timeout(Duration::from_millis(200), listener.heard()).await.is_err(), "nothing was committed");
    for number in 0..3 {
        commit(&two, &format!("u{number}@example.com")).await;
        timeout(Duration::from_secs(20), listener.heard()).await.expect("heard").unwrap();
    }
}

async fn a_log_that_goes_back_begins_a_new_epoch(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("a").await;
    app.boolean_flag("b").await;
    let before = app.replica.revision();
    // As after a backup of before the last change was restored.
    let url = &app.database.url;
    tamper_with_log(url, "DELETE FROM change_log WHERE revision = (SELECT max(revision) FROM change_log)").await;
    tamper(url, "DELETE FROM feature_flags WHERE name = 'b'").await;
    tamper(url, "UPDATE log_head SET revision = revision - 1").await;
    let after = eventually("a new epoch", async || {
        Some(app.replica.revision()).filter(|revision| revision.epoch != before.epoch)
    })
    .await;
    assert_eq!(after.number, before.number - 1);
    assert!(app.replica.read().flag("b").is_none() && app.replica.read().flag("a").is_some());
    let mut conn = app.core.store().conn().await.unwrap();
    assert_eq!(flags_store::change_log::head(&mut conn).await.unwrap(), after);
}

async fn of_several_servers_one_ends_an_epoch(kind: Kind) {
    let database = Database::migrated(kind).await;
    let store = database.store().await;
    let seen = flags_store::change_log::head(&mut store.conn().await.unwrap()).await.unwrap().epoch;
    assert!(store.begin_epoch_after(seen).await.unwrap());
    assert!(!store.begin_epoch_after(seen).await.unwrap(), "it has ended already");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_or_timeline_begins_a_new_epoch() {
    let database = Database::migrated(Kind::Postgres).await;
    let store = database.store().await;
    let epoch = async || flags_store::change_log::head(&mut store.conn().await.unwrap()).await.unwrap().epoch;
    let first = epoch().await;
    assert!(!store.adopt_lineage().await.unwrap(), "the first to write notes where it writes");
    let lineage = query(&database.url, "SELECT lineage FROM log_head").await;
    assert!(lineage[0].as_ref().is_some_and(|text| text.contains("/0000000")), "{lineage:?}");
    assert!(!store.adopt_lineage().await.unwrap());
    assert_eq!(epoch().await, first);
    execute(&database.url, "UPDATE log_head SET lineage = '1/00000001'").await;
    assert!(store.adopt_lineage().await.unwrap());
    assert!(!store.adopt_lineage().await.unwrap());
    assert_ne!(epoch().await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_silently_dead_is_noticed() {
    let database = Database::migrated(Kind::Postgres).await;
    let proxy = Proxy::start(Target::Unix(flags_tests::cluster::shared().socket())).await;
    let name = database.url.rsplit('/').next().unwrap();
    let url = format!("postgres://postgres@{}/{name}", proxy.address).parse().unwrap();
    let (through, direct) = (Store::open(&url).await.unwrap(), database.store().await);
    let mut listener = through.listen().await.unwrap();
    commit(&direct, "a@example.com").await;
    listener.heard().await.unwrap();
    proxy.set(Fault::BlackHole);
    let deaf = timeout(Duration::from_secs(60), listener.heard()).await.expect("noticed");
    assert!(deaf.is_err());
    proxy.set(Fault::Pass);
    proxy.cut_all();
    let mut listener = through.listen().await.unwrap();
    commit(&direct, "b@example.com").await;
    timeout(Duration::from_secs(60), listener.heard()).await.expect("heard").unwrap();
}

async fn a_log_that_cannot_be_followed_is_loaded_anew(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("a").await;
    let url = &app.database.url;
    let reached = async |number: i64| {
        eventually("the replica has been loaded anew", async || {
            (app.replica.revision().number == number && app.replica.read().flag("b").is_some()).then_some(())
        })
        .await;
    };
    // A hole: the head is five further than the rows.
    let number = app.replica.revision().number;
    let copy = "INSERT INTO feature_flags SELECT 'b', flag_type, description, owner, tags, enabled, variants, default_serve, \
                off_variant, targeting_rules, salt, client_visible, archived_at, default_set_at, enabled_set_at, deleting, \
                search_text, tags_text, created_at, updated_at, revision FROM feature_flags WHERE name = 'a'";
    tamper(url, &format!("{copy}; UPDATE log_head SET revision = revision + 5")).await;
    reached(number + 5).await;
    // A row that nobody can read.
    let number = number + 6;
    let strange = format!("UPDATE change_log SET revision = {number}, entity = 'nonsense' WHERE revision = 1");
    tamper_with_log(url, &format!("{strange}; UPDATE log_head SET revision = {number}")).await;
    reached(number).await;
    // And on as if nothing had happened.
    app.boolean_flag("c").await;
    assert_eq!(app.replica.revision().number, number + 1);
}

async fn an_epoch_that_comes_back_is_ended_again(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("a").await;
    let first = app.replica.revision().epoch;
    let begun = app.core.store().new_epoch().await.unwrap().epoch;
    let epoch = async |unlike: [uuid::Uuid; 2]| {
        eventually("another epoch", async || Some(app.replica.revision().epoch).filter(|epoch| !unlike.contains(epoch)))
            .await
    };
    assert_eq!(epoch([first; 2]).await, begun);
    // As after a backup of before that was restored: the old epoch again, with the same head or a higher one.
    let hex = first.simple().to_string();
    let literal = if kind == Kind::Postgres { format!("'{hex}'") } else { format!("x'{hex}'") };
    tamper(&app.database.url, &format!("UPDATE log_head SET epoch = {literal}")).await;
    let third = epoch([first, begun]).await;
    let mut conn = app.core.store().conn().await.unwrap();
    assert_eq!(flags_store::change_log::head(&mut conn).await.unwrap().epoch, third);
}

async fn an_override_that_cannot_be_read_takes_no_other_down(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.clock_to_the_past();
    app.boolean_flag("a").await;
    let (ann, _) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    let ends = json!({"override_value": true, "expires_at": "2020-01-01T00:00:05Z"});
    for id in [&ann, &ben] {
        app.admin.put(&override_at(id, "a"), &ends).await.expect(201);
    }
    // As others may write it: a number that no double holds.
    let id = ann.replace('-', "");
    let of_ann = if kind == Kind::Postgres { format!("'{id}'") } else { format!("x'{id}'") };
    let value = format!("UPDATE user_flag_overrides SET override_value = '1e999' WHERE user_id = {of_ann}");
    tamper(&app.database.url, &value).await;
    let loaded = Replica::new(flags_service::feed::load(app.core.store()).await.unwrap());
    let count = |id: &str| loaded.read().overrides_of(id.parse().unwrap()).count();
    assert_eq!((count(&ann), count(&ben)), (0, 1));
    app.clock.set(flags_domain::Instant::parse("2020-01-01T00:00:06Z").unwrap());
    let round = flags_service::maintenance::run_round(&app.core, Default::default()).await.unwrap();
    assert_eq!(round.overrides_expired, 1);
}

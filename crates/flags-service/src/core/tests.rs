use std::io;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tracing_subscriber::fmt::format::FmtSpan;

use super::*;
use crate::{
    SystemClock,
    change_feed::{ChangeFeed, load},
    users::{NewUser, UserService},
};

/// Application log of a test, one JSON object per line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Captures the log of this thread, including one line per closed span, until the guard is
    /// dropped.
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_span_events(FmtSpan::CLOSE);
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self, message: &str) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["message"] == message).collect()
    }

    /// Spans with this name that have ended.
    fn closed_spans(&self, name: &str) -> Vec<Value> {
        let lines = self.lines("close").into_iter();
        lines.map(|line| line["span"].clone()).filter(|span| span["name"] == name).collect()
    }
}

async fn migrated_store(directory: &tempfile::TempDir) -> Store {
    let url = format!("sqlite://{}", directory.path().join("flags.db").display());
    let store = Store::open(&url.parse().unwrap()).await.unwrap();
    store.migrate().await.unwrap();
    store
}

fn author() -> CommandAuthor {
    CommandAuthor::without_credential(Author { actor: "system:test".to_owned(), request_id: None })
}

/// Logs a message and changes nothing.
#[derive(Clone)]
struct LogMessage;

impl Command for LogMessage {
    type Output = ();

    async fn apply(&self, _: &mut Tx, _: &Author) -> Result<()> {
        tracing::info!("applied");
        Ok(())
    }
}

#[tokio::test]
async fn log_lines_of_a_command_include_the_spans_of_command_and_request() {
    let directory = tempfile::tempdir().unwrap();
    let core = Core::new(migrated_store(&directory).await, Arc::new(SystemClock::default()));
    let (log, _guard) = Log::start();
    let request = tracing::info_span!("request", request_id = "r-1");
    core.execute(author(), LogMessage).instrument(request).await.unwrap();
    let [line] = log.lines("applied").try_into().unwrap();
    let spans: Vec<_> = line["spans"].as_array().unwrap().iter().collect();
    assert_eq!(spans[0]["request_id"], "r-1", "{line}");
    assert_eq!(
        (&spans[1]["command"], &line["span"]["command"]),
        (&"LogMessage".into(), &"LogMessage".into()),
        "{line}"
    );
}

#[tokio::test]
async fn spans_of_commands_and_feed_rounds_contain_the_revision() {
    let directory = tempfile::tempdir().unwrap();
    let store = migrated_store(&directory).await;
    let (clock, replica) = (Arc::new(SystemClock::default()), Arc::new(Replica::new(load(&store).await.unwrap())));
    let core = Core::new(store.clone(), clock.clone());
    let feed = ChangeFeed::new(store, Arc::clone(&replica), Arc::default(), clock);
    let (log, _guard) = Log::start();
    feed.catch_up().await.unwrap();
    assert_eq!(log.closed_spans("feed_round"), [Value::Null; 0], "nothing was applied");
    let new_user = NewUser {
        email: Some("ann@example.com".to_owned()),
        external_id: None,
        display_name: None,
        role: flags_domain::Role::User,
        attributes: Map::new(),
        active: true,
        password: None,
    };
    let created = UserService::new(core).create(author(), new_user).await.unwrap();
    let revision = created.committed.revision();
    feed.catch_up().await.unwrap();
    feed.catch_up().await.unwrap();
    assert_eq!(replica.revision(), revision);
    let [command] = log.closed_spans("command").try_into().unwrap();
    assert_eq!((&command["command"], &command["revision"]), (&"CreateUser".into(), &revision.to_string().into()));
    let [round] = log.closed_spans("feed_round").try_into().unwrap();
    assert_eq!(round["revision"], revision.to_string());
}

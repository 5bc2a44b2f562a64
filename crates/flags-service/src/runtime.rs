//! Wiring of the service: store, replica, core and change feed.

use std::sync::Arc;

use flags_store::Store;
use tokio::{sync::Notify, task::JoinHandle};

use crate::{
    change_feed::{self, ChangeFeed},
    clock::Clock,
    core::Core,
    credentials::signing::SigningKey,
    error::Result,
    evaluation::Evaluation,
    replica::Replica,
};

/// The running service of one server process. Dropping it stops the change feed; the replica then becomes stale.
pub struct Runtime {
    /// Executes commands and queries, and waits for the replica after each commit.
    pub core: Core,
    /// The replica that the change feed keeps up to date.
    pub replica: Arc<Replica>,
    /// Evaluates flags from the replica.
    pub evaluation: Evaluation,
    /// Key that signs stream tokens. All servers on one database share it.
    pub stream_token_key: SigningKey,
    feed: JoinHandle<()>,
}

impl Runtime {
    /// Loads the replica and starts the change feed on the current Tokio runtime. The database schema must be up to
    /// date.
    pub async fn start(store: Store, clock: Arc<dyn Clock>) -> Result<Self> {
        let stream_token_key = SigningKey::for_event_streams(&store).await?;
        change_feed::check_database_identity(&store).await?;
        let replica = Arc::new(Replica::new(change_feed::load(&store).await?));
        let wakeup = Arc::new(Notify::new());
        let core = Core::new(store.clone(), Arc::clone(&clock)).with_replica(Arc::clone(&replica), Arc::clone(&wakeup));
        let evaluation = core.evaluation(&replica);
        evaluation.preload_token_users().await?;
        let feed = tokio::spawn(ChangeFeed::new(store, Arc::clone(&replica), wakeup, clock).run());
        Ok(Self { core, replica, evaluation, stream_token_key, feed })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.feed.abort();
    }
}

//! Binaries as processes, database outages, maintenance, migrations and the OpenAPI document.

mod cli;
mod evaluation_budget;
mod metrics;
mod migrations;
mod openapi;
mod outage;
mod server_process;
mod statement_counts;
mod worker;
mod worker_independence;

use flags_tests::{caller::Caller, eventually};

/// Waits until the server has read the caller's token, which was created through the command line.
async fn wait_until_token_is_known(caller: &Caller) {
    eventually("the server has read the token", async || {
        (caller.get("/api/admin/users").await.status == 200).then_some(())
    })
    .await;
}

//! Running the binaries: processes, migrations, outages and maintenance.

mod migrations;
mod openapi;
mod outage;
mod processes;
mod worker;
mod worker_independence;

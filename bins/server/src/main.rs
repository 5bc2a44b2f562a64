//! The feature-flag server: reads its command line, builds, runs.

mod args;
mod commands;
mod demo;
mod failure;
mod jwt_args;
mod run;

use std::{io::Write as _, process::ExitCode, time::Duration};

use clap::Parser as _;
use flags_service::startup;

use crate::{
    args::{Cli, Command},
    failure::Failure,
};

/// Longest that what still runs on threads for blocking work may hold up the end: a lock of SQLite's file, say.
const LAST_WAIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    startup::start_logging(cli.log_format, "info,actix_server=warn");
    startup::warn_of_secrets_in_arguments();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return report(&error.into()),
    };
    let outcome = runtime.block_on(carry_out(cli));
    runtime.shutdown_timeout(LAST_WAIT);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    // If standard error is gone there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "server: {failure}");
    ExitCode::FAILURE
}

async fn carry_out(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        None => run::run(cli.run).await,
        Some(Command::Run(args)) => run::run(*args).await,
        Some(Command::Migrate(database)) => commands::migrate(&database.url()?).await,
        Some(Command::Demo { database, bind }) => demo::demo(&database.url()?, bind).await,
        Some(Command::NewEpoch(database)) => commands::new_epoch(&database.url()?).await,
        Some(Command::Token(command)) => commands::token(command).await,
        Some(Command::User(command)) => commands::user(command).await,
        Some(Command::Openapi) => commands::openapi(),
    }
}

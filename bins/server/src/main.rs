//! The feature-flag server and its administrative commands.

mod args;
mod cli_error;
mod commands;
mod demo;
mod jwt_args;
mod run;

use std::{io::Write as _, process::ExitCode, time::Duration};

use clap::Parser as _;

use crate::{
    args::{Cli, CliCommand},
    cli_error::CliError,
};

/// Maximum time to wait at exit for blocking tasks, such as a task that waits for a SQLite lock.
const BLOCKING_TASKS_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    flags_startup::init_logging(cli.log_format, "info,actix_server=warn");
    flags_startup::warn_about_passwords_in_arguments();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return print_error(&error.into()),
    };
    let outcome = runtime.block_on(execute(cli));
    runtime.shutdown_timeout(BLOCKING_TASKS_TIMEOUT);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => print_error(&error),
    }
}

fn print_error(error: &CliError) -> ExitCode {
    // If standard error is closed, the message cannot be reported elsewhere.
    let _ = writeln!(std::io::stderr(), "server: {error}");
    ExitCode::FAILURE
}

async fn execute(cli: Cli) -> Result<(), CliError> {
    match cli.command {
        None => run::run(cli.run).await,
        Some(CliCommand::Run(args)) => run::run(*args).await,
        Some(CliCommand::Migrate(database)) => commands::migrate(&database.url()?).await,
        Some(CliCommand::Demo { database, bind }) => demo::demo(&database.url()?, bind).await,
        Some(CliCommand::NewEpoch(database)) => commands::new_epoch(&database.url()?).await,
        Some(CliCommand::Token(command)) => commands::token(command).await,
        Some(CliCommand::User(command)) => commands::user(command).await,
        Some(CliCommand::Openapi) => commands::openapi(),
    }
}

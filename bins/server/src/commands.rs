//! The administrative commands, except `demo`.

use std::{
    io::{BufRead as _, Read as _, Write as _},
    sync::Arc,
};

use flags_service::{
    Core, Precondition, SystemClock,
    credentials::{
        check::CommandAuthor,
        passwords::Password,
        sessions::{SessionLifetimes, SessionService},
        tokens::{NewToken, TokenService},
    },
    users::{NewUser, UserService},
};
use flags_store::{Author, DatabaseUrl, Store, api_tokens::TokenGrant, users::UserRecord};
use serde_json::Map;

use crate::{
    args::{CliScope, TokenCommand, UserCommand},
    cli_error::CliError,
};

/// Author that the change log records for changes from the command line.
pub(crate) fn command_line_author() -> CommandAuthor {
    CommandAuthor::without_credential(Author { actor: "system:command-line".to_owned(), request_id: None })
}

/// Opens the database and applies pending migrations. If none are pending, the database role needs no DDL privileges.
pub(crate) async fn open(url: &DatabaseUrl) -> Result<Core, CliError> {
    let store = Store::open(url).await?;
    if !store.is_migrated().await? {
        store.migrate().await?;
    }
    Ok(Core::new(store, Arc::new(SystemClock::default())))
}

pub(crate) async fn migrate(url: &DatabaseUrl) -> Result<(), CliError> {
    let applied = Store::open(url).await?.migrate().await?;
    let message =
        if applied.is_empty() { "no pending migrations".to_owned() } else { format!("applied {}", applied.join(", ")) };
    print_line(&message)
}

pub(crate) async fn new_epoch(url: &DatabaseUrl) -> Result<(), CliError> {
    let store = Store::open(url).await?;
    if !store.is_migrated().await? {
        return Err(CliError::new("the database schema does not match this version; run `server migrate`"));
    }
    print_line(&store.start_new_epoch().await?.to_string())
}

pub(crate) fn openapi() -> Result<(), CliError> {
    let document = flags_api::openapi().to_pretty_json().map_err(|error| CliError::new(error.to_string()))?;
    print_line(&document)
}

pub(crate) async fn token(command: TokenCommand) -> Result<(), CliError> {
    let TokenCommand::Create { database, name, role, scope, user, expires_at } = command;
    let core = open(&database.url()?).await?;
    let user_id = match user {
        None => None,
        Some(user) => Some(find_user(&UserService::new(core.clone()), &user).await?.id),
    };
    // Clap guarantees that exactly one of `role` and `scope` is set.
    let grant = match (role, scope) {
        (Some(role), _) => TokenGrant::Role(role.into()),
        (None, Some(CliScope::Evaluate) | None) => TokenGrant::Evaluate,
    };
    let new_token = NewToken { name, grant, user_id, expires_at };
    let created = TokenService::new(core).create(command_line_author(), new_token).await?;
    print_line(created.output.secret.reveal())
}

pub(crate) async fn user(command: UserCommand) -> Result<(), CliError> {
    match command {
        UserCommand::Create { database, email, external_id, role, display_name, password_stdin } => {
            let password = if password_stdin { Some(read_password()?) } else { None };
            let core = open(&database.url()?).await?;
            let attributes = Map::new();
            let role = role.into();
            let new_user = NewUser { email, external_id, display_name, role, attributes, active: true, password };
            let created = UserService::new(core).create(command_line_author(), new_user).await?;
            print_line(&created.output.record.id.to_string())
        }
        UserCommand::SetPassword { database, email, password_stdin: _ } => {
            let password = read_password()?;
            let core = open(&database.url()?).await?;
            let user = find_user(&UserService::new(core.clone()), &email).await?;
            let sessions = SessionService::new(core, SessionLifetimes::default());
            sessions.set_password(command_line_author(), user.id, password, Precondition::None).await?;
            print_line(&user.id.to_string())
        }
    }
}

async fn find_user(users: &UserService, reference: &str) -> Result<UserRecord, CliError> {
    let found = users.find_by_reference(reference).await?;
    found.ok_or_else(|| CliError::new(format!("no user has the e-mail address, external id or user id {reference}")))
}

/// Reads a password from the first line of standard input.
fn read_password() -> Result<Password, CliError> {
    let mut line = String::new();
    std::io::stdin().lock().take(4_096).read_line(&mut line)?;
    let password = line.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(CliError::new("the first line of standard input is empty; it must contain the password"));
    }
    Ok(password.to_owned().into())
}

fn print_line(line: &str) -> Result<(), CliError> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

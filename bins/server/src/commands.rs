//! The commands that do one thing and end.

use std::{
    io::{BufRead as _, Read as _, Write as _},
    sync::Arc,
};

use flags_service::{
    Core, Precondition, SystemClock,
    credentials::{
        passwords::Password,
        sessions::{Lifetimes, SessionService},
        tokens::{TokenInput, TokenService},
    },
    users::{UserInput, UserService},
};
use flags_store::{Author, DatabaseUrl, Store, api_tokens::Grant, users::UserRecord};
use serde_json::Map;

use crate::{
    args::{CliScope, TokenCommand, UserCommand},
    failure::Failure,
};

/// Who stands in the log for what was done on the command line.
pub(crate) fn command_line() -> Author {
    Author { actor: "system:command-line".to_owned(), request_id: None }
}

/// Opens the database and brings its schema up to date, which needs rights that few roles have, if it is not.
pub(crate) async fn open(url: &DatabaseUrl) -> Result<Core, Failure> {
    let store = Store::open(url).await?;
    if !store.is_migrated().await? {
        store.migrate().await?;
    }
    Ok(Core::new(store, Arc::new(SystemClock::default())))
}

pub(crate) async fn migrate(url: &DatabaseUrl) -> Result<(), Failure> {
    let applied = Store::open(url).await?.migrate().await?;
    let line = if applied.is_empty() { "nothing to do".to_owned() } else { format!("applied {}", applied.join(", ")) };
    print_line(&line)
}

pub(crate) async fn new_epoch(url: &DatabaseUrl) -> Result<(), Failure> {
    let store = Store::open(url).await?;
    if !store.is_migrated().await? {
        return Err(Failure::new("the database's schema is not this program's; run `server migrate`"));
    }
    print_line(&store.new_epoch().await?.to_string())
}

pub(crate) fn openapi() -> Result<(), Failure> {
    let document = flags_api::openapi().to_pretty_json().map_err(|error| Failure::new(error.to_string()))?;
    print_line(&document)
}

pub(crate) async fn token(command: TokenCommand) -> Result<(), Failure> {
    let TokenCommand::Create { database, name, role, scope, user, expires_at } = command;
    let core = open(&database.url()?).await?;
    let user_id = match user {
        None => None,
        Some(email) => Some(find_user(&UserService::new(core.clone()), &email).await?.id),
    };
    // The command line has seen to it that it is exactly one of the two.
    let grant = match (role, scope) {
        (Some(role), _) => Grant::Role(role.into()),
        (None, Some(CliScope::Evaluate) | None) => Grant::Evaluate,
    };
    let input = TokenInput { name, grant, user_id, expires_at };
    let done = TokenService::new(core).create(command_line(), input).await?;
    print_line(done.output.secret.reveal())
}

pub(crate) async fn user(command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Create { database, email, role, display_name, password_stdin } => {
            let password = if password_stdin { Some(read_password()?) } else { None };
            let core = open(&database.url()?).await?;
            let attributes = Map::new();
            let input = UserInput { email, display_name, role: role.into(), attributes, active: true, password };
            let done = UserService::new(core).create(command_line(), input).await?;
            print_line(&done.output.record.id.to_string())
        }
        UserCommand::SetPassword { database, email, password_stdin: _ } => {
            let password = read_password()?;
            let core = open(&database.url()?).await?;
            let user = find_user(&UserService::new(core.clone()), &email).await?;
            let sessions = SessionService::new(core, Lifetimes::default());
            sessions.set_password(command_line(), user.id, password, Precondition::None).await?;
            print_line(&user.id.to_string())
        }
    }
}

async fn find_user(users: &UserService, email: &str) -> Result<UserRecord, Failure> {
    let found = users.find_by_email(email).await?;
    found.ok_or_else(|| Failure::new(format!("there is no user with the e-mail {email}")))
}

/// The first line of standard input.
fn read_password() -> Result<Password, Failure> {
    let mut line = String::new();
    std::io::stdin().lock().take(4_096).read_line(&mut line)?;
    let password = line.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(Failure::new("standard input holds no password"));
    }
    Ok(password.to_owned().into())
}

fn print_line(line: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

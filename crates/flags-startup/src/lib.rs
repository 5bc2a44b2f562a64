//! Startup code shared by the server and the cleanup worker: database URL and application log.

mod database_url;
mod logging;

pub use crate::{
    database_url::{
        DEFAULT_DATABASE_URL, DatabaseUrlError, SecretOption, database_url, warn_about_passwords_in_arguments,
    },
    logging::{InvalidLogFormat, LogFormat, init_logging},
};

//! Service layer of the feature-flag server: use cases, the in-memory replica that evaluation
//! reads, and maintenance.
//!
//! The crate contains no HTTP and no SQL. Operations fail with [`ServiceError`], which the HTTP
//! layer converts to a response.

pub mod acting_user;
pub mod audit;
pub mod bulk;
pub mod change_feed;
mod clock;
mod command_output;
mod core;
pub mod credentials;
mod error;
pub mod evaluation;
pub mod findings;
pub mod flags;
pub mod maintenance;
pub mod metrics;
pub mod notifier;
mod override_deletion;
pub mod overrides;
mod patch;
mod precondition;
pub mod replica;
mod runtime;
pub mod schedules;
pub mod stream_position;
mod user_ids;
mod user_source;
pub mod users;
pub mod wall_time;

pub use crate::{
    clock::{Clock, ManualClock, SystemClock},
    core::{Command, CommandOutcome, CommandOutput, CommandRequest, Core},
    error::{Conflict, CredentialRejection, ResourceKind, Result, ServiceError},
    precondition::Precondition,
    runtime::Runtime,
};

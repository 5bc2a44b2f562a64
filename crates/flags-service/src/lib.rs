//! Use cases of the feature-flag service, the replica that evaluation reads, and maintenance.
//!
//! Knows no HTTP and no SQL. Errors are [`ServiceError`], told apart by what they mean to a caller; the edge turns them
//! into answers.

pub mod audit;
pub mod bulk;
mod clock;
mod core;
pub mod credentials;
pub mod cursor;
mod error;
pub mod evaluation;
pub mod feed;
pub mod findings;
pub mod flags;
pub mod maintenance;
pub mod metrics;
pub mod notifier;
pub mod overrides;
mod patch;
mod precondition;
pub mod replica;
pub mod schedules;
pub mod startup;
pub mod users;
pub mod wall_time;

pub use crate::{
    clock::{Clock, ManualClock, SystemClock},
    core::{Command, CommandOutcome, CommandRequest, Core},
    error::{Conflict, ResourceKind, Result, ServiceError},
    precondition::Precondition,
};

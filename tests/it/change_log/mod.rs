//! The change log: transactions, revisions and notifications.

mod notifications;
mod transactions;

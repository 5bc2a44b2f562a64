//! Change log: transactions, notifications, epochs, and recovery from corrupt rows.

mod credentials;
mod epochs;
mod notifications;
mod recovery;
mod replica;
mod transactions;

use flags_domain::Instant;
use flags_store::users::UserRecord;
use flags_tests::seed;

fn new_user(email: &str) -> UserRecord {
    seed::user_record(email, Instant::from_micros(1))
}

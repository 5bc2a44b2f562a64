//! Fields of users that identify them for display.

use std::collections::HashMap;

use diesel::{ExpressionMethods, QueryDsl, Queryable, Selectable};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    TABLE,
    handles::{handle, is_email_handle},
};
use crate::{
    conn::{Conn, dispatch},
    decoded::{Decoded, columns},
    error::Result,
    schema::users,
    sql_types::DbUuid,
};

/// Fields that identify a user for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserIdentity {
    /// Display name.
    pub display_name: Option<String>,
    /// E-mail address.
    pub email: Option<String>,
    /// Id of the user in another system.
    pub external_id: Option<String>,
}

/// Columns of a [`UserIdentity`]. The id is the first, so that only the id is logged if the row cannot be read.
#[derive(Queryable, Selectable)]
#[diesel(table_name = users)]
pub(crate) struct UserIdentityRow {
    id: DbUuid,
    handle: String,
    display_name: Option<String>,
    external_id: Option<String>,
}

impl From<UserIdentityRow> for UserIdentity {
    fn from(row: UserIdentityRow) -> Self {
        let email = Some(row.handle).filter(|handle| is_email_handle(handle));
        Self { display_name: row.display_name, email, external_id: row.external_id }
    }
}

impl UserIdentity {
    /// Returns the e-mail address or, without one, the external id.
    pub fn handle(&self) -> &str {
        handle(self.email.as_deref(), self.external_id.as_deref())
    }

    /// Returns the display name, else the handle, else `id`, which must be the id of the user.
    pub fn label(&self, id: Uuid) -> String {
        let label = self.display_name.as_deref().unwrap_or_else(|| self.handle());
        if label.is_empty() { id.to_string() } else { label.to_owned() }
    }
}

/// Returns the [labels](UserIdentity::label) of the users with the given ids. Omits unknown ids and rows that cannot be
/// read.
pub async fn find_labels(conn: &mut Conn, ids: &[Uuid]) -> Result<HashMap<Uuid, String>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<_> = ids.iter().copied().map(DbUuid).collect();
    let rows: Vec<Decoded<UserIdentityRow>> = dispatch!(conn, |c| {
        users::table.filter(users::id.eq_any(&ids)).select(columns!(UserIdentityRow)).load(c).await
    })?;
    let readable =
        rows.into_iter().filter_map(|row| row.or_logged(TABLE)).map(|row| (row.id.0, UserIdentity::from(row)));
    Ok(readable.map(|(id, user)| (id, user.label(id))).collect())
}

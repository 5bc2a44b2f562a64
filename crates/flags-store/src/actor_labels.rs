//! Readable labels for actors. The change log itself identifies actors by id only.
//!
//! Writes in this module are not recorded in the change log.

use diesel::{BoolExpressionMethods, ExpressionMethods, NullableExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::{conn::dispatch, error::Result, schema::actor_labels, sql_types::DbUuid, transaction::Tx};

/// Returns the actor name of a user: `user:<id>`.
pub fn user_actor(id: Uuid) -> String {
    format!("user:{id}")
}

/// Returns the actor name of an API token: `token:<id>`.
pub fn token_actor(id: Uuid) -> String {
    format!("token:{id}")
}

/// Sets the label of an actor.
pub async fn set(tx: &mut Tx, actor: &str, label: &str) -> Result<()> {
    set_for_user(tx, actor, label, None).await
}

/// Sets the label of an actor that acts on behalf of `user_id`. The first call for an actor also
/// stores `user_id`; later calls do not change it.
pub(crate) async fn set_for_user(tx: &mut Tx, actor: &str, label: &str, user_id: Option<Uuid>) -> Result<()> {
    let user_id = user_id.map(DbUuid);
    dispatch!(tx.conn(), |c| {
        diesel::insert_into(actor_labels::table)
            .values((actor_labels::actor.eq(actor), actor_labels::label.eq(label), actor_labels::user_id.eq(user_id)))
            .on_conflict(actor_labels::actor)
            .do_update()
            .set(actor_labels::label.eq(label))
            .execute(c)
            .await
    })?;
    Ok(())
}

/// Removes the label of a user and the labels of all tokens that ever acted on behalf of the user. Returns the number
/// of removed labels.
pub async fn erase(tx: &mut Tx, user_id: Uuid) -> Result<usize> {
    let actor = user_actor(user_id);
    dispatch!(tx.conn(), |c| {
        let of_user = actor_labels::actor.eq(&actor).nullable().or(actor_labels::user_id.eq(DbUuid(user_id)));
        diesel::delete(actor_labels::table.filter(of_user)).execute(c).await
    })
}

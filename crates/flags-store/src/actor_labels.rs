//! The readable labels of actors: book-keeping beside the log, which knows them by id alone.

use diesel::{BoolExpressionMethods, ExpressionMethods, NullableExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::{commit::Tx, error::Result, schema::actor_labels, sql_types::DbUuid, store::on};

/// The name of a user in the log.
pub fn user_actor(id: Uuid) -> String {
    format!("user:{id}")
}

/// The name of a token in the log.
pub fn token_actor(id: Uuid) -> String {
    format!("token:{id}")
}

/// Sets the readable label of an actor. Labels are book-keeping beside the log: they take no revision.
pub async fn set(tx: &mut Tx, actor: &str, label: &str) -> Result<()> {
    set_of(tx, actor, label, None).await
}

/// The same, of an actor that acts as this user. Once it is said it stays said, whoever sets the label.
pub(crate) async fn set_of(tx: &mut Tx, actor: &str, label: &str, user_id: Option<Uuid>) -> Result<()> {
    let user_id = user_id.map(DbUuid);
    on!(tx.conn(), |c| {
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

/// Removes the label of a user and those of the tokens that act or acted as them, and returns how many there were.
pub async fn erase(tx: &mut Tx, user_id: Uuid) -> Result<usize> {
    let actor = user_actor(user_id);
    on!(tx.conn(), |c| {
        let theirs = actor_labels::actor.eq(&actor).nullable().or(actor_labels::user_id.eq(DbUuid(user_id)));
        diesel::delete(actor_labels::table.filter(theirs)).execute(c).await
    })
}

//! Creates the user of a new override if no user has the external id.

use flags_domain::{FlagName, check_external_id};
use flags_store::{
    Author, StoreError, Tx, flags,
    idempotency::{self, IdempotencyKey, KeyState},
    users::{self, Role, UserRecord},
};
use serde_json::Map;
use uuid::Uuid;

use super::{
    NewOverride, UserFlagOverrideService,
    commands::{check_new_override, require_flag},
    parse_flag_name,
};
use crate::{
    core::{Command, CommandRequest},
    error::{Result, ServiceError, check},
    precondition::Precondition,
    user_ids::user_id_namespace,
    users::insert_user,
};

impl UserFlagOverrideService {
    /// Returns the id of the user with this external id. If there is none, creates an active user with role `user`, in
    /// a separate revision.
    ///
    /// Call this before [`create`](Self::create) or [`set_override`](Self::set_override), with the same arguments. If
    /// the second call would fail, this call fails with the same error and creates no user. If the second call would be
    /// a replay, this call fails with [`ServiceError::Replayed`]. If a concurrent change makes only the second call
    /// fail, a retry finds the user that was created.
    pub async fn find_or_create_user<T>(
        &self,
        request: &CommandRequest<T>,
        external_id: &str,
        flag_name: &str,
        new_override: &NewOverride,
        precondition: &Precondition,
    ) -> Result<Uuid> {
        let derived_id = user_id_namespace(self.core.store()).await?.user_id(external_id);
        if let Some(id) = self.core.read(async |conn| find_user(conn, external_id, derived_id).await).await? {
            return Ok(id);
        }
        // Check the external id only now: an invalid one belongs to no stored user.
        check(check_external_id("/user_id", external_id).into_iter().collect())?;
        let command = CreateMissingUser {
            id: derived_id,
            external_id: external_id.to_owned(),
            flag_name: parse_flag_name(flag_name)?,
            new_override: new_override.clone(),
            precondition: precondition.clone(),
            key: request.key().cloned(),
        };
        Ok(self.core.execute(request.author().clone(), command).await?.output)
    }
}

/// Returns the id of the user who has the external id or whose own id is `derived_id`.
async fn find_user(
    conn: &mut flags_store::Conn,
    external_id: &str,
    derived_id: Uuid,
) -> flags_store::Result<Option<Uuid>> {
    let user = match users::find_by_external_id(conn, external_id).await? {
        Some(user) => Some(user),
        None => users::find(conn, derived_id).await?,
    };
    Ok(user.map(|user| user.id))
}

#[derive(Clone)]
struct CreateMissingUser {
    id: Uuid,
    external_id: String,
    flag_name: FlagName,
    new_override: NewOverride,
    /// Precondition for the override.
    precondition: Precondition,
    /// Key of the request, under which its response is stored together with the override.
    key: Option<IdempotencyKey>,
}

impl Command for CreateMissingUser {
    type Output = Uuid;

    async fn apply(&self, tx: &mut Tx, _: &Author) -> Result<Uuid> {
        if let Some(id) = find_user(tx.conn(), &self.external_id, self.id).await? {
            return Ok(id);
        }
        let now = tx.now();
        let user = UserRecord {
            id: self.id,
            email: None,
            external_id: Some(self.external_id.clone()),
            display_name: None,
            role: Role::User,
            attributes: Map::new(),
            active: true,
            created_at: now,
            updated_at: now,
            revision: 0,
        };
        if insert_user(tx, &user).await?.is_some() {
            // A concurrent transaction created the user. The retry finds it.
            return Err(StoreError::TransactionConflict("user was created concurrently".to_owned()).into());
        }
        // Check the key after the insertion, because the insertion waits for concurrent requests with the same key. If
        // such a request had completed and its user still existed, the insertion would have found that user.
        if let Some(key) = &self.key {
            match idempotency::find(tx, key).await? {
                KeyState::New => {}
                KeyState::Completed(response) => return Err(ServiceError::Replayed(response)),
                KeyState::Mismatch => return Err(ServiceError::IdempotencyKeyReused),
            }
        }
        self.precondition.check(tx, None).await?;
        let flag = require_flag(flags::lock_shared(tx, &self.flag_name).await?)?;
        check_new_override(&self.new_override, &flag, tx.now())?;
        Ok(self.id)
    }
}

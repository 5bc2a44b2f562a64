//! Conversion of database rows into the input types of the replica.

use flags_store::{
    StoreError,
    api_tokens::TokenRecord,
    change_log::{ChangeSummary, LoggedChange},
};

use crate::replica::{ChangeMetadata, DescribedChange, ReplicaToken};

pub(super) fn decode_change(row: &LoggedChange) -> Result<DescribedChange, StoreError> {
    Ok(DescribedChange { metadata: metadata(&row.summary), change: row.to_change()? })
}

pub(super) fn metadata(row: &ChangeSummary) -> ChangeMetadata {
    ChangeMetadata {
        actor: row.actor.clone(),
        action: row.action,
        resource_kind: row.resource_kind,
        resource_id: row.resource_id,
        flag_name: row.flag_name.clone(),
        user_id: row.user_id,
    }
}

/// Converts tokens for the replica and omits revoked tokens.
pub(super) fn unrevoked_tokens(tokens: Vec<TokenRecord>) -> Vec<ReplicaToken> {
    let unrevoked = tokens.into_iter().filter(|token| token.revoked_at.is_none());
    unrevoked
        .map(|token| ReplicaToken {
            id: token.id,
            hash: token.hash,
            grant: token.grant,
            user_id: token.user_id,
            expires_at: token.expires_at,
        })
        .collect()
}

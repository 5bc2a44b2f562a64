//! Tests of a replica that is fed with values instead of a database.

use std::sync::Arc;

use flags_domain::{
    Action, Change, EvaluationBudget, EvaluationContext, Flag, FlagName, Instant, ResourceKind, Revision, Role,
    Snapshot, TokenGrant, UserOverride,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::*;

const ANN: Uuid = Uuid::from_u128(1);
const NOW: Instant = Instant::from_micros(1_000);

fn revision(number: i64) -> Revision {
    Revision { epoch: Uuid::from_u128(7), number }
}

/// A string flag with the default value `off`.
fn flag(name: &str, client_visible: bool) -> Flag {
    let definition = json!({
        "name": name, "flag_type": "string", "enabled": true,
        "variants": [{"id": "off", "value": "off"}], "default": {"variant": "off"}, "off_variant": "off",
        "salt": name, "client_visible": client_visible,
        "default_set_at": "2026-01-01T00:00:00Z", "enabled_set_at": "2026-01-01T00:00:00Z",
    });
    serde_json::from_value(definition).unwrap()
}

fn flag_name(name: &str) -> FlagName {
    FlagName::new(name).unwrap()
}

fn user_override(user_id: Uuid, flag: &str, value: Value) -> UserOverride {
    UserOverride {
        id: Uuid::from_u128(2),
        user_id,
        flag_name: flag_name(flag),
        override_value: value,
        enabled: None,
        reason: None,
        created_by: "user:1".to_owned(),
        created_at: NOW,
        updated_at: NOW,
        expires_at: None,
    }
}

fn described(resource_kind: ResourceKind, change: Change) -> DescribedChange {
    let (flag_name, user_id) = match &change {
        Change::FlagSet(flag) => (Some(flag.name().clone()), None),
        Change::OverrideSet(user_override) => (Some(user_override.flag_name.clone()), Some(user_override.user_id)),
        Change::OverrideRemoved { user_id, flag_name } => (Some(flag_name.clone()), Some(*user_id)),
        Change::UserChanged(id) => (None, Some(*id)),
        _ => (None, None),
    };
    let actor = "system:test".to_owned();
    let metadata =
        ChangeMetadata { actor, action: Action::Updated, resource_kind, resource_id: None, flag_name, user_id };
    DescribedChange { metadata, change }
}

fn set_flag(name: &str, client_visible: bool) -> DescribedChange {
    described(ResourceKind::Flag, Change::FlagSet(Box::new(flag(name, client_visible).into())))
}

fn set_override(user_id: Uuid, flag: &str, value: Value) -> DescribedChange {
    described(ResourceKind::Override, Change::OverrideSet(Box::new(user_override(user_id, flag, value))))
}

fn empty_replica() -> Replica {
    Replica::new(LoadedState::new(
        revision(0),
        Snapshot::default(),
        Vec::new(),
        Vec::new(),
        DatabaseKeys { shards: ShardKey::new(&[0; 16]), user_ids: UserIdNamespace::new([0; 16]) },
    ))
}

fn apply(replica: &Replica, number: i64, changes: Vec<DescribedChange>) {
    replica.apply(Commit { revision: revision(number), changes, tokens: Vec::new(), external_users: Vec::new() });
}

fn value_for(replica: &Replica, user_id: Uuid, flag: &str) -> Value {
    let context = EvaluationContext::anonymous("key", Map::new());
    let snapshot = replica.snapshot(Some(user_id));
    snapshot.evaluate(flag, &context, NOW, &mut EvaluationBudget::default()).unwrap().resolution.value.value().clone()
}

/// Resource kind and invalidation of each change after `revision`, in order.
fn invalidations_after(replica: &Replica, revision: i64) -> Vec<(ResourceKind, Invalidation)> {
    let commits = replica.read().commits_after(revision).unwrap();
    commits.iter().flat_map(|commit| commit.changes.iter().map(|c| (c.resource_kind, c.invalidation))).collect()
}

#[test]
fn evaluates_flags_and_overrides_of_applied_commits() {
    let replica = empty_replica();
    apply(&replica, 1, vec![set_flag("a", true)]);
    assert_eq!(value_for(&replica, ANN, "a"), json!("off"));
    apply(&replica, 2, vec![set_override(ANN, "a", json!("mine"))]);
    assert_eq!(value_for(&replica, ANN, "a"), json!("mine"));
    assert_eq!(value_for(&replica, Uuid::from_u128(9), "a"), json!("off"));
    assert_eq!((replica.revision(), replica.read().revision()), (revision(2), revision(2)));
    let removed = Change::OverrideRemoved { user_id: ANN, flag_name: flag_name("a") };
    apply(&replica, 3, vec![described(ResourceKind::Override, removed)]);
    assert_eq!(value_for(&replica, ANN, "a"), json!("off"));
}

#[test]
fn pairs_each_change_of_a_commit_with_its_own_invalidation() {
    let replica = empty_replica();
    apply(&replica, 1, vec![set_flag("visible", true)]);
    let remove = Change::OverrideRemoved { user_id: ANN, flag_name: flag_name("visible") };
    let changes = vec![
        described(ResourceKind::Override, remove),
        set_flag("hidden", false),
        described(ResourceKind::ApiToken, Change::TokenChanged(Uuid::from_u128(3))),
        set_override(ANN, "visible", json!("mine")),
        described(ResourceKind::User, Change::UserChanged(ANN)),
        set_flag("visible", true),
        set_flag("new", true),
    ];
    apply(&replica, 2, changes);
    let expected = [
        (ResourceKind::Override, Invalidation::None),
        (ResourceKind::Flag, Invalidation::HiddenFlag),
        (ResourceKind::ApiToken, Invalidation::None),
        (ResourceKind::Override, Invalidation::Override { expires_at: None }),
        (ResourceKind::User, Invalidation::User),
        (ResourceKind::Flag, Invalidation::None),
        (ResourceKind::Flag, Invalidation::Flag { was_visible: false }),
    ];
    assert_eq!(invalidations_after(&replica, 1), expected);
}

#[test]
fn records_the_revision_of_a_commit_only_for_affected_streams() {
    let replica = empty_replica();
    let notifier = Arc::clone(replica.notifier());
    let (ann, other) = (notifier.subscribe(ANN), notifier.subscribe(Uuid::from_u128(9)));
    apply(&replica, 1, vec![set_flag("a", false)]);
    assert_eq!((ann.last_revision(), other.last_revision()), (0, 0), "the flag is hidden");
    apply(&replica, 2, vec![set_override(ANN, "a", json!("mine"))]);
    assert_eq!((ann.last_revision(), other.last_revision()), (2, 0));
    apply(&replica, 3, vec![described(ResourceKind::ApiToken, Change::TokenChanged(Uuid::from_u128(3)))]);
    assert_eq!((ann.last_revision(), other.last_revision()), (3, 3), "every stream checks its credential");
}

#[test]
fn a_token_change_replaces_or_removes_the_token() {
    let replica = empty_replica();
    let token = ReplicaToken {
        id: Uuid::from_u128(3),
        hash: [1; 32],
        grant: TokenGrant::Role(Role::Viewer),
        user_id: None,
        expires_at: Some(NOW),
    };
    let change = || vec![described(ResourceKind::ApiToken, Change::TokenChanged(token.id))];
    replica.apply(Commit {
        revision: revision(1),
        changes: change(),
        tokens: vec![token.clone()],
        external_users: Vec::new(),
    });
    let is_valid_at = |at| replica.read().token(&token.hash).map(|token| token.is_valid_at(at));
    assert_eq!(is_valid_at(NOW.plus_micros(-1)), Some(true));
    assert_eq!(is_valid_at(NOW), Some(false));
    replica.apply(Commit { revision: revision(2), changes: change(), tokens: Vec::new(), external_users: Vec::new() });
    assert_eq!(is_valid_at(NOW), None);
}

#[test]
fn streams_resume_from_commits_before_the_loaded_revision() {
    let past = |revision, action, name: &str| PastCommit {
        revision,
        changes: vec![ChangeMetadata { action, ..set_flag(name, true).metadata }],
    };
    let recent = vec![past(4, Action::Created, "a"), past(5, Action::Updated, "a"), past(6, Action::Updated, "gone")];
    let flags = Snapshot::new([(flag("a", true), Vec::new())]);
    let replica = Replica::new(LoadedState::new(
        revision(6),
        flags,
        Vec::new(),
        recent,
        DatabaseKeys { shards: ShardKey::new(&[0; 16]), user_ids: UserIdNamespace::new([0; 16]) },
    ));
    let expected = [
        (ResourceKind::Flag, Invalidation::Flag { was_visible: false }),
        (ResourceKind::Flag, Invalidation::Flag { was_visible: true }),
        (ResourceKind::Flag, Invalidation::Unknown),
    ];
    assert_eq!(invalidations_after(&replica, 3), expected);
    assert!(replica.read().commits_after(2).is_none(), "revision 3 is unknown");
}

#[test]
fn snapshots_keep_their_state_while_commits_are_applied() {
    let replica = empty_replica();
    apply(&replica, 1, vec![set_flag("a", true), set_override(ANN, "a", json!("mine"))]);
    let snapshot = replica.snapshot(Some(ANN));
    let removed = Change::FlagRemoved(flag_name("a"));
    apply(&replica, 2, vec![described(ResourceKind::Flag, removed), set_override(ANN, "a", json!("other"))]);
    let context = EvaluationContext::anonymous("key", Map::new());
    let evaluated = snapshot.evaluate("a", &context, NOW, &mut EvaluationBudget::default()).unwrap();
    assert_eq!((evaluated.resolution.value.value(), snapshot.revision()), (&json!("mine"), revision(1)));
    assert!(replica.snapshot(Some(ANN)).flag("a").is_none());
}

#[test]
fn health_checks_do_not_wait_for_the_state_lock() {
    let replica = empty_replica();
    // Taking the lock again on this thread would deadlock.
    let writer = replica.state.write();
    assert_eq!(replica.revision(), revision(0));
    assert!(!replica.is_stale() && replica.age() < STALE_AFTER);
    drop(writer);
}

#[test]
fn commit_does_not_wait_for_a_running_evaluation() {
    let replica = empty_replica();
    apply(&replica, 1, vec![set_flag("a", true)]);
    let context = EvaluationContext::anonymous("key", Map::new());
    let snapshot = replica.snapshot(Some(ANN));
    let mut results = snapshot.evaluate_all(&context, NOW, |_| true);
    // If the evaluation held the read lock, this commit would deadlock.
    apply(&replica, 2, vec![set_flag("b", true)]);
    assert_eq!(results.next().unwrap().resolution.value.value(), &json!("off"));
    assert!(results.next().is_none(), "the snapshot has revision 1");
}

#[test]
fn reload_does_not_undo_token_changes_newer_than_the_loaded_revision() {
    let token = ReplicaToken {
        id: Uuid::from_u128(3),
        hash: [1; 32],
        grant: TokenGrant::Role(Role::Viewer),
        user_id: None,
        expires_at: None,
    };
    let loaded = |number, tokens| {
        LoadedState::new(
            revision(number),
            Snapshot::default(),
            tokens,
            Vec::new(),
            DatabaseKeys { shards: ShardKey::new(&[0; 16]), user_ids: UserIdNamespace::new([0; 16]) },
        )
    };
    let replica = Replica::new(loaded(1, vec![token.clone()]));
    let is_known = || replica.read().token(&token.hash).is_some();
    let scope = CredentialScope::Changed { user_ids: Vec::new(), token_ids: vec![token.id] };
    replica.apply_credentials(CredentialUpdate {
        revision: revision(3),
        scope,
        tokens: Vec::new(),
        external_users: Vec::new(),
    });
    assert_eq!((is_known(), replica.credential_updates()), (false, 1));
    replica.replace(loaded(2, vec![token.clone()]));
    assert!(!is_known(), "the token was revoked at revision 3");
    replica.replace(loaded(4, vec![token.clone()]));
    assert!(is_known());
}

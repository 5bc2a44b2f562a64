//! The user that a credential acts as, with the attributes of its JWT.

use std::sync::Arc;

use flags_domain::{EvaluationContext, Role};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    credentials::jwt::JwtUsers,
    error::Result,
    evaluation::{Evaluation, FoundUser, ResolvedKey},
    replica::CachedUser,
};

/// User that a credential acts as.
#[derive(Clone, Debug)]
pub struct ActingUser {
    /// The active user. The evaluation context contains the attributes of the JWT.
    pub user: Arc<CachedUser>,
    /// Whether the user is stored.
    pub is_stored: bool,
}

impl ActingUser {
    const fn stored(user: Arc<CachedUser>) -> Self {
        Self { user, is_stored: true }
    }
}

/// Subject of a JWT. `Debug` prints neither the key nor the attributes.
#[derive(Default)]
pub struct JwtSubject {
    /// Evaluation key. `None` if the JWT names the user by e-mail address, and for a stream token, which contains only
    /// the user's id.
    pub key: Option<Box<str>>,
    /// Attributes from the claims. They have priority over stored attributes.
    pub attributes: Map<String, Value>,
}

impl std::fmt::Debug for JwtSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JwtSubject(…)")
    }
}

impl Evaluation {
    /// Returns the active user with this id, for a session or an API token. `None` if there is none.
    ///
    /// # Errors
    /// Like [`user`](Self::user).
    pub async fn acting_user(&self, id: Uuid) -> Result<Option<ActingUser>> {
        Ok(self.user(id).await?.filter(|user| user.active).map(ActingUser::stored))
    }

    /// Returns the user of a JWT, who had this id when the request was authenticated. `None` if the user is inactive,
    /// if the user is not stored and `accepted` does not permit it, or if the key of the JWT now belongs to a user with
    /// another id.
    ///
    /// # Errors
    /// Like [`user`](Self::user).
    pub async fn jwt_user(&self, id: Uuid, subject: &JwtSubject, accepted: JwtUsers) -> Result<Option<ActingUser>> {
        let found = match &subject.key {
            None => self.find_user(id).await?,
            Some(key) => {
                let ResolvedKey { user_id, user } = self.resolve_key(key).await?;
                if user_id != id {
                    return Ok(None);
                }
                user
            }
        };
        Ok(match found {
            FoundUser::Stored(user) if user.active => Some(ActingUser::stored(subject.add_attributes(user))),
            FoundUser::Absent if accepted == JwtUsers::Any => {
                Some(ActingUser { user: Arc::new(subject.unknown_user(id)), is_stored: false })
            }
            // The user of a row that cannot be read may be inactive.
            FoundUser::Stored(_) | FoundUser::Absent | FoundUser::Unreadable => None,
        })
    }
}

impl JwtSubject {
    /// Adds the attributes to the context of a stored user.
    fn add_attributes(&self, user: Arc<CachedUser>) -> Arc<CachedUser> {
        if self.attributes.is_empty() {
            return user;
        }
        let context = user.context.with_attributes(self.attributes.clone());
        let (id, role, active, email) = (user.id, user.role, user.active, user.email.clone());
        Arc::new(CachedUser { id, role, active, email, context })
    }

    /// Returns the user of a key for which no user is stored. Its attribute `role` is the role of a new user, so that
    /// conditions on the role have the same result after the user is stored.
    fn unknown_user(&self, id: Uuid) -> CachedUser {
        let role = Role::User;
        let mut attributes = self.attributes.clone();
        attributes.insert("role".to_owned(), role.as_str().into());
        let context = match &self.key {
            Some(key) => EvaluationContext::anonymous_user(key, id, attributes),
            None => EvaluationContext::without_key(attributes),
        };
        CachedUser { id, role, active: true, email: None, context }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use flags_domain::{
        Action, Change, EvaluationBudget, Flag, FlagName, Instant, ResourceKind, Revision, Snapshot, UserIdNamespace,
        UserOverride,
    };
    use flags_store::users::UserRecord;
    use parking_lot::Mutex;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        ManualClock,
        evaluation::{UserLookup, UserSource},
        replica::{
            ChangeMetadata, Commit, DatabaseKeys, DescribedChange, ExternalUser, LoadedState, Replica, ShardKey,
        },
        user_source::cached_user,
    };

    const NAMESPACE: UserIdNamespace = UserIdNamespace::new([7; 16]);
    const NOW: Instant = Instant::from_micros(1_000);

    /// Source of users with their database rows in memory.
    #[derive(Default)]
    struct Rows(Mutex<HashMap<Uuid, UserRecord>>);

    impl UserSource for Rows {
        fn find(&self, id: Uuid) -> UserLookup<'_, Option<CachedUser>> {
            Box::pin(async move { Ok(self.0.lock().get(&id).map(|row| cached_user(row.clone(), NAMESPACE))) })
        }

        fn find_by_email<'a>(&'a self, _: &'a str) -> UserLookup<'a, Option<CachedUser>> {
            Box::pin(async { Ok(None) })
        }

        fn find_all<'a>(&'a self, _: &'a [Uuid]) -> UserLookup<'a, Vec<CachedUser>> {
            Box::pin(async { Ok(Vec::new()) })
        }
    }

    /// A replica and the rows of its users.
    struct World {
        evaluation: Evaluation,
        rows: Arc<Rows>,
    }

    impl World {
        fn new(flags: Snapshot) -> Self {
            let revision = Revision { epoch: Uuid::nil(), number: 0 };
            let keys = DatabaseKeys { shards: ShardKey::new(&[0; 16]), user_ids: NAMESPACE };
            let replica = Arc::new(Replica::new(LoadedState::new(revision, flags, Vec::new(), Vec::new(), keys)));
            let rows = Arc::new(Rows::default());
            let clock = Arc::new(ManualClock::new(NOW));
            Self { evaluation: Evaluation::new(clock, Arc::clone(&rows) as _, replica), rows }
        }

        fn commit(&self, resource_kind: ResourceKind, user_id: Uuid, change: Change) {
            let metadata = ChangeMetadata {
                actor: "system:test".to_owned(),
                action: Action::Created,
                resource_kind,
                resource_id: None,
                flag_name: None,
                user_id: Some(user_id),
            };
            let row = self.rows.0.lock().get(&user_id).cloned();
            let external_id = row.and_then(|row| row.external_id);
            let external_users = external_id.map(|external_id| ExternalUser { id: user_id, external_id });
            let replica = self.evaluation.replica();
            let current = replica.revision();
            let revision = Revision { number: current.number + 1, ..current };
            let changes = vec![DescribedChange { metadata, change }];
            replica.apply(Commit {
                revision,
                changes,
                tokens: Vec::new(),
                external_users: external_users.into_iter().collect(),
            });
        }

        fn store(&self, id: Uuid, external_id: Option<&str>, attributes: Map<String, Value>) {
            let row = UserRecord {
                id,
                email: None,
                external_id: external_id.map(Into::into),
                display_name: None,
                role: Role::User,
                attributes,
                active: true,
                created_at: NOW,
                updated_at: NOW,
                revision: 1,
            };
            self.rows.0.lock().insert(id, row);
            self.commit(ResourceKind::User, id, Change::UserChanged(id));
        }

        fn set_active(&self, id: Uuid, active: bool) {
            self.rows.0.lock().get_mut(&id).unwrap().active = active;
            self.commit(ResourceKind::User, id, Change::UserChanged(id));
        }

        fn set_override(&self, user_id: Uuid, flag: &str, value: Value) {
            let user_override = UserOverride {
                id: Uuid::from_u128(2),
                user_id,
                flag_name: FlagName::new(flag).unwrap(),
                override_value: value,
                enabled: None,
                reason: None,
                created_by: "user:1".to_owned(),
                created_at: NOW,
                updated_at: NOW,
                expires_at: None,
            };
            self.commit(ResourceKind::Override, user_id, Change::OverrideSet(Box::new(user_override)));
        }

        async fn jwt_user(&self, subject: &JwtSubject, accepted: JwtUsers) -> Option<ActingUser> {
            let id = self.evaluation.resolve_key(subject.key.as_ref().unwrap()).await.unwrap().user_id;
            self.evaluation.jwt_user(id, subject, accepted).await.unwrap()
        }

        /// Returns the variants of all flags for a JWT with this subject.
        async fn results_of_jwt(&self, subject: &JwtSubject) -> Vec<String> {
            let acting = self.jwt_user(subject, JwtUsers::Any).await.unwrap();
            self.variants(acting.user.id, &acting.user.context)
        }

        /// Returns the variants of all flags for a request with this key and these attributes, from a caller with scope
        /// `evaluate`.
        async fn results_of_request(&self, key: &str, attributes: &Map<String, Value>) -> Vec<String> {
            let resolved = self.evaluation.resolve_key(key).await.unwrap();
            let context = resolved.context(key).with_attributes(attributes.clone());
            self.variants(resolved.user_id, &context)
        }

        fn variants(&self, user_id: Uuid, context: &EvaluationContext) -> Vec<String> {
            let snapshot = self.evaluation.replica().snapshot(Some(user_id));
            let evaluate = |name: &str| {
                let evaluated = snapshot.evaluate(name, context, NOW, &mut EvaluationBudget::default()).unwrap();
                format!("{name} {}", evaluated.resolution.variant.map_or("override", |variant| variant.id()))
            };
            ["generated", "split", "role", "other"].map(evaluate).into()
        }
    }

    fn flag(name: &str, rules: Vec<Value>, default: Value) -> Flag {
        let definition = json!({
            "name": name, "flag_type": "string", "enabled": true,
            "variants": [{"id": "a", "value": "a"}, {"id": "b", "value": "b"}, {"id": "c", "value": "c"}],
            "default": default, "off_variant": "a", "salt": name, "client_visible": true, "targeting_rules": rules,
            "default_set_at": "2026-01-01T00:00:00Z", "enabled_set_at": "2026-01-01T00:00:00Z",
        });
        serde_json::from_value(definition).unwrap()
    }

    fn split(bucket_by: Option<&str>) -> Value {
        json!({"weights": {"a": 30, "b": 30, "c": 40}, "bucket_by": bucket_by})
    }

    fn flags(rules: Vec<Value>) -> Snapshot {
        let role = json!({"id": "r", "serve": {"variant": "b"},
            "conditions": [{"attribute": "role", "operator": "equals", "values": ["user"]}]});
        let flags = [
            flag("generated", rules, split(Some("user_id"))),
            flag("split", Vec::new(), split(None)),
            flag("role", vec![role], json!({"variant": "a"})),
            flag("other", Vec::new(), json!({"variant": "a"})),
        ];
        Snapshot::new(flags.into_iter().map(|flag| (flag, Vec::new())))
    }

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("must be an object") };
        object
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    const UUID: &str = "5d41402a-bc4b-2a76-b971-9d911017c592";

    /// Generates keys: a UUID in several spellings, and other texts.
    fn any_key() -> impl Strategy<Value = String> {
        let spellings = [
            UUID.to_owned(),
            UUID.to_uppercase(),
            UUID.replace('-', ""),
            format!("{{{UUID}}}"),
            format!("urn:uuid:{UUID}"),
            "crm-7".to_owned(),
        ];
        prop_oneof![4 => proptest::sample::select(spellings.to_vec()), 1 => "[a-z0-9 ]{1,3}"]
    }

    /// Generates values of a condition on `user_id`: a key, or the id that is derived from a key.
    fn any_user_id_value() -> impl Strategy<Value = String> {
        (any_key(), 0..4_u8).prop_map(|(key, form)| match form {
            0 => NAMESPACE.user_id(&key).to_string(),
            1 => NAMESPACE.user_id(&key).simple().to_string().to_uppercase(),
            _ => key,
        })
    }

    fn any_rules() -> impl Strategy<Value = Vec<Value>> {
        let user_id = (any_user_id_value(), any_user_id_value(), 0..5_usize).prop_map(|(a, b, operator)| {
            ("user_id", ["equals", "contains", "starts_with"][operator.saturating_sub(2)], json!([a, b]))
        });
        let plan = (0..3_u8).prop_map(|plan| ("plan", "equals", json!([plan])));
        let condition = (prop_oneof![3 => user_id, 1 => plan], any::<bool>()).prop_map(|((attribute, operator, values), negate)| {
            json!({"attribute": attribute, "operator": operator, "values": values, "negate": negate})
        });
        let serve = prop_oneof![Just(json!({"variant": "c"})), Just(split(None)), Just(split(Some("plan")))];
        let rule = (prop::collection::vec(condition, 1..3), serve);
        prop::collection::vec(rule, 0..3).prop_map(|rules| {
            let with_ids = rules.into_iter().enumerate();
            with_ids.map(|(index, (conditions, serve))| {
                json!({"id": format!("r{index}"), "conditions": conditions, "serve": serve})
            }).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn storing_a_user_or_an_override_changes_no_other_result(
            rules in any_rules(),
            key in any_key(),
            plan in 0..3_u8,
            stored_plan in prop::option::of(0..3_u8),
        ) {
            run(async {
                let world = World::new(flags(rules));
                let attributes = object(json!({"plan": plan, "address": {"country": "de"}}));
                let subject = JwtSubject { key: Some(key.as_str().into()), attributes: attributes.clone() };
                let results = async || {
                    let mut of_request = world.results_of_request(&key, &attributes).await;
                    // The built-in attributes of a stored user take precedence over those of the request.
                    of_request.retain(|result| !result.starts_with("role "));
                    (world.results_of_jwt(&subject).await, of_request)
                };
                let before = results().await;
                let id = NAMESPACE.user_id(&key);
                let with_override = |(mut of_jwt, mut of_request): (Vec<String>, Vec<String>)| {
                    *of_jwt.last_mut().unwrap() = "other b".to_owned();
                    *of_request.last_mut().unwrap() = "other b".to_owned();
                    (of_jwt, of_request)
                };
                let stored = object(stored_plan.map_or_else(|| json!({}), |plan| json!({"plan": plan, "address.country": "at"})));
                world.store(id, Some(&key), stored);
                prop_assert_eq!(&results().await, &before, "after the user is stored");
                world.set_override(id, "other", json!("b"));
                prop_assert_eq!(results().await, with_override(before.clone()), "after the override");
                let overridden_first = World::new(flags(Vec::new()));
                overridden_first.set_override(id, "other", json!("b"));
                let of_request = overridden_first.results_of_request(&key, &attributes).await;
                prop_assert!(of_request.contains(&"other b".to_owned()), "without a stored user");
                Ok(())
            })?;
        }

        #[test]
        fn setting_an_external_id_changes_no_result(rules in any_rules(), external_id in "[a-z]{1,8}", plan in 0..3_u8) {
            run(async {
                let world = World::new(flags(rules));
                let id: Uuid = UUID.parse().unwrap();
                let attributes = object(json!({"plan": plan}));
                let results = async |key: &str| {
                    let subject = JwtSubject { key: Some(key.into()), attributes: attributes.clone() };
                    (world.results_of_jwt(&subject).await, world.results_of_request(key, &attributes).await)
                };
                world.store(id, None, Map::new());
                let before = results(UUID).await;
                world.store(id, Some(&external_id), Map::new());
                prop_assert_eq!(&results(UUID).await, &before);
                prop_assert_eq!(&results(&external_id).await, &before, "the external id names the same user");
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn inactive_and_unreadable_users_are_not_taken_for_unknown_ones() {
        let world = World::new(flags(Vec::new()));
        let subject = JwtSubject { key: Some("crm-7".into()), attributes: Map::new() };
        assert!(world.jwt_user(&subject, JwtUsers::Known).await.is_none());
        let unknown = world.jwt_user(&subject, JwtUsers::Any).await.unwrap();
        assert!(!unknown.is_stored && unknown.user.role == Role::User);
        let id = NAMESPACE.user_id("crm-7");
        world.store(id, Some("crm-7"), Map::new());
        assert!(world.jwt_user(&subject, JwtUsers::Any).await.unwrap().is_stored);
        world.set_active(id, false);
        assert!(world.jwt_user(&subject, JwtUsers::Any).await.is_none());
        world.set_active(id, true);
        assert!(world.jwt_user(&subject, JwtUsers::Known).await.unwrap().is_stored);
        // The key now belongs to a user with another id.
        assert!(world.evaluation.jwt_user(Uuid::from_u128(9), &subject, JwtUsers::Any).await.unwrap().is_none());
    }
}

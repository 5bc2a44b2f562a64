//! `UserFlagOverrideService`, called without HTTP.

use serde_json::json;

use flags_tests::{
    app::{TestApp, command_author},
    database::DatabaseKind,
    on_both_databases,
};

on_both_databases! {
    service_sets_lists_evaluates_and_removes_overrides,
}

async fn service_sets_lists_evaluates_and_removes_overrides(kind: DatabaseKind) {
    use flags_service::{Precondition, ResourceKind, ServiceError, overrides::NewOverride};
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    let ann_id = ann_id.parse().unwrap();
    for name in ["b", "a", "c"] {
        app.create_boolean_flag(name).await;
    }
    let service = app.override_service();
    let input = |expires_at: Option<&str>| NewOverride {
        override_value: json!(true),
        enabled: true,
        reason: None,
        expires_at: expires_at.map(|at| flags_domain::Instant::parse(at).unwrap()),
    };
    for (flag, expires_at) in [("b", None), ("a", Some("2030-01-01T00:00:05Z")), ("c", Some("2030-01-01T00:00:06Z"))] {
        service.set_override(command_author(), ann_id, flag, input(expires_at), Precondition::None).await.unwrap();
    }
    service.set_override(command_author(), ann_id, "b", input(None), Precondition::None).await.unwrap();
    let flag_names = async || {
        let records = service.get_user_overrides(ann_id).await.unwrap();
        records.into_iter().map(|record| record.user_override.flag_name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(flag_names().await, ["a", "b", "c"]);
    assert_eq!(service.get_flag_value_for_user("a", ann_id).await.unwrap(), true);
    app.set_clock("01-01T00:00:05Z");
    assert_eq!(flag_names().await, ["b", "c"], "expired overrides are omitted");
    assert_eq!(service.get_flag_value_for_user("a", ann_id).await.unwrap(), false);
    assert!(service.remove_override(command_author(), ann_id, "c").await.unwrap());
    assert!(!service.remove_override(command_author(), ann_id, "c").await.unwrap());
    let unknown_id = uuid::Uuid::from_u128(1);
    let missing_resource =
        |error: ServiceError| if let ServiceError::NotFound(resource) = error { Some(resource) } else { None };
    assert_eq!(missing_resource(service.get_user_overrides(unknown_id).await.unwrap_err()), Some(ResourceKind::User));
    assert_eq!(
        missing_resource(service.get_flag_value_for_user("nope", ann_id).await.unwrap_err()),
        Some(ResourceKind::Flag)
    );
    assert_eq!(
        missing_resource(service.get_flag_value_for_user("a", unknown_id).await.unwrap_err()),
        Some(ResourceKind::User)
    );
    let result = service.set_override(command_author(), unknown_id, "a", input(None), Precondition::None).await;
    assert_eq!(missing_resource(result.unwrap_err()), Some(ResourceKind::User));
    // On PostgreSQL, cleanup removes only overrides that have also expired by the database clock. That clock shows the
    // real time, so these overrides have not expired.
    let expected_removals = if kind == DatabaseKind::Sqlite { 1 } else { 0 };
    assert_eq!(service.cleanup_expired_overrides().await.unwrap(), expected_removals);
    assert_eq!(service.cleanup_expired_overrides().await.unwrap(), 0);
    assert_eq!(flag_names().await, ["b"]);
}

//! Diesel table definitions, shared by both databases.
#![allow(missing_docs, reason = "the migrations document the columns")]

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql_types::{Doc, Id, Instant};

    users (id) {
        id -> Id,
        handle -> Text,
        handle_key -> Text,
        display_name -> Nullable<Text>,
        role -> Text,
        attributes -> Doc,
        active -> Bool,
        search_text -> Text,
        created_at -> Instant,
        updated_at -> Instant,
        revision -> BigInt,
        name_start -> Text,
        external_id -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql_types::{Doc, Instant};

    feature_flags (name) {
        name -> Text,
        flag_type -> Text,
        description -> Nullable<Text>,
        owner -> Nullable<Text>,
        tags -> Doc,
        enabled -> Bool,
        variants -> Doc,
        default_serve -> Doc,
        off_variant -> Text,
        targeting_rules -> Doc,
        salt -> Text,
        client_visible -> Bool,
        archived_at -> Nullable<Instant>,
        default_set_at -> Instant,
        enabled_set_at -> Instant,
        deleting -> Bool,
        search_text -> Text,
        tags_text -> Text,
        created_at -> Instant,
        updated_at -> Instant,
        revision -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql_types::{Doc, Id, Instant};

    scheduled_changes (id) {
        id -> Id,
        flag_name -> Text,
        scheduled_at -> Instant,
        serve -> Nullable<Doc>,
        enabled -> Nullable<Bool>,
        description -> Nullable<Text>,
        created_by -> Text,
        created_at -> Instant,
        updated_at -> Instant,
        cancelled_at -> Nullable<Instant>,
        marked_at -> Nullable<Instant>,
        revision -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql_types::{Doc, Id, Instant};

    user_flag_overrides (id) {
        id -> Id,
        user_id -> Id,
        flag_name -> Text,
        override_value -> Doc,
        enabled -> Nullable<Bool>,
        reason -> Nullable<Text>,
        created_by -> Text,
        created_at -> Nullable<Instant>,
        updated_at -> Nullable<Instant>,
        expires_at -> Nullable<Instant>,
        revision -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql_types::{Id, Instant};

    api_tokens (id) {
        id -> Id,
        name -> Text,
        token_hash -> Binary,
        last_four -> Text,
        role -> Nullable<Text>,
        scope -> Nullable<Text>,
        user_id -> Nullable<Id>,
        created_by -> Text,
        created_at -> Instant,
        expires_at -> Nullable<Instant>,
        lifetime -> Nullable<BigInt>,
        revoked_at -> Nullable<Instant>,
        last_used_at -> Nullable<Instant>,
        revision -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql_types::Id;

    actor_labels (actor) {
        actor -> Text,
        label -> Text,
        user_id -> Nullable<Id>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql_types::Id;

    log_head (id) {
        id -> SmallInt,
        epoch -> Id,
        revision -> BigInt,
        lowest_revision -> BigInt,
        lineage -> Nullable<Text>,
        min_reader -> Integer,
        min_writer -> Integer,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql_types::{Doc, Id, Instant};

    change_log (revision, ord) {
        revision -> BigInt,
        ord -> Integer,
        id -> Id,
        at -> Instant,
        actor -> Text,
        action -> Text,
        entity -> Text,
        entity_id -> Nullable<Id>,
        flag_name -> Nullable<Text>,
        user_id -> Nullable<Id>,
        before -> Nullable<Doc>,
        after -> Nullable<Doc>,
        reason -> Nullable<Text>,
        request_id -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql_types::Instant;

    idempotency_keys (caller, key) {
        caller -> Text,
        key -> Text,
        fingerprint -> Binary,
        answer -> Binary,
        revision -> BigInt,
        created_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql_types::{Id, Instant};

    user_passwords (user_id) {
        user_id -> Id,
        hash -> Text,
        set_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql_types::{Id, Instant};

    sessions (id) {
        id -> Id,
        token_hash -> Binary,
        user_id -> Id,
        created_at -> Instant,
        last_seen_at -> Instant,
        ends_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql_types::Instant;

    sign_in_attempts (subject) {
        subject -> Binary,
        failures -> Integer,
        last_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql_types::{Id, Instant};

    sign_in_places (user_id, place) {
        user_id -> Id,
        place -> Binary,
        last_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    service_keys (name) {
        name -> Text,
        secret -> Binary,
    }
}

diesel::table! {
    pending_upgrades (name) {
        name -> Text,
    }
}

diesel::joinable!(user_passwords -> users (user_id));
diesel::joinable!(sign_in_places -> users (user_id));
diesel::joinable!(user_flag_overrides -> users (user_id));
diesel::joinable!(scheduled_changes -> feature_flags (flag_name));
diesel::allow_tables_to_appear_in_same_query!(users, user_flag_overrides, feature_flags, scheduled_changes, api_tokens);
diesel::allow_tables_to_appear_in_same_query!(users, user_passwords, sign_in_places);
diesel::allow_tables_to_appear_in_same_query!(users, sessions);
diesel::allow_tables_to_appear_in_same_query!(log_head, change_log);

//! Demo data: users, flags, rules, a scheduled change and overrides, made through the same use cases as everything else.

use std::{collections::BTreeMap, io::Write as _, net::SocketAddr, sync::Arc};

use flags_domain::{FlagName, Instant, Serve};
use flags_service::{
    Core, Precondition,
    credentials::{
        passwords,
        tokens::{TokenInput, TokenService},
    },
    evaluation::Evaluation,
    feed,
    flags::{FlagInput, FlagService},
    overrides::{OverrideInput, UserFlagOverrideService},
    replica::Replica,
    schedules::{ScheduleInput, ScheduleService},
    users::{UserInput, UserService},
};
use flags_store::{Author, DatabaseUrl, api_tokens::Grant, users::Role};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{commands::open, failure::Failure};

const MINUTE: i64 = 60 * 1_000_000;

/// Fills an empty database and prints how to try it.
pub(crate) async fn demo(url: &DatabaseUrl, bind: SocketAddr) -> Result<(), Failure> {
    let core = open(url).await?;
    let occupied = {
        let mut conn = core.store().conn().await?;
        flags_store::users::any(&mut conn).await? || !flags_store::flags::load_all(&mut conn).await?.is_empty()
    };
    if occupied {
        return Err(Failure::new("the database is not empty; demo data only goes into an empty one"));
    }
    let demo = Demo { core, author: Author { actor: "system:demo".to_owned(), request_id: None } };
    let users = demo.users().await?;
    demo.flags().await?;
    demo.schedule().await?;
    demo.overrides(&users).await?;
    let tokens = demo.tokens(&users).await?;
    print_guide(bind, &users, &tokens)
}

struct Demo {
    core: Core,
    author: Author,
}

struct Users {
    ann: Uuid,
    ben: Uuid,
    vera: Uuid,
    ada: Uuid,
    /// Ada's.
    password: String,
}

struct Tokens {
    admin: String,
    viewer: String,
    ann: String,
    ben: String,
}

impl Demo {
    async fn user(&self, name: &str, role: Role, attributes: Value, password: Option<&str>) -> Result<Uuid, Failure> {
        let Value::Object(attributes) = attributes else { return Err(Failure::new("attributes must be an object")) };
        let input = UserInput {
            email: format!("{}@example.com", name.to_lowercase()),
            display_name: Some(format!("{name} (demo)")),
            role,
            attributes,
            active: true,
            password: password.map(|password| password.to_owned().into()),
        };
        let done = UserService::new(self.core.clone()).create(self.author.clone(), input).await?;
        Ok(done.output.record.id)
    }

    async fn users(&self) -> Result<Users, Failure> {
        let password = passwords::generate()?;
        Ok(Users {
            ann: self.user("Ann", Role::User, json!({"plan": "pro", "app_version": "2.4.0"}), None).await?,
            ben: self.user("Ben", Role::User, json!({"plan": "free", "app_version": "2.3.1"}), None).await?,
            vera: self.user("Vera", Role::Viewer, json!({}), None).await?,
            ada: self.user("Ada", Role::Admin, json!({}), Some(&password)).await?,
            password,
        })
    }

    async fn flag(&self, definition: Value) -> Result<(), Failure> {
        let input = flag_input(definition).map_err(|error| Failure::new(error.to_string()))?;
        FlagService::new(self.core.clone()).create(self.author.clone(), input).await?;
        Ok(())
    }

    async fn flags(&self) -> Result<(), Failure> {
        self.flag(json!({
            "name": "ui.dark_mode", "flag_type": "boolean", "description": "The dark theme",
            "variants": [{"id": "on", "value": true}, {"id": "off", "value": false}],
            "default": {"variant": "off"}, "off_variant": "off",
        }))
        .await?;
        self.flag(json!({
            "name": "checkout.flow", "flag_type": "string", "description": "Paying customers get the new checkout",
            "variants": [{"id": "old", "value": "classic"}, {"id": "new", "value": "one-page"}],
            "default": {"weights": {"old": 90, "new": 10}}, "off_variant": "old",
            "targeting_rules": [{"id": "pro", "name": "Paying users", "serve": {"variant": "new"},
                "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}]}],
        }))
        .await?;
        self.flag(json!({
            "name": "search.max_results", "flag_type": "number", "description": "More for newer apps",
            "variants": [{"id": "few", "value": 20}, {"id": "many", "value": 100}],
            "default": {"variant": "few"}, "off_variant": "few",
            "targeting_rules": [{"id": "new_app", "serve": {"variant": "many"},
                "conditions": [{"attribute": "app_version", "operator": "semver_gte", "values": ["2.4.0"]}]}],
        }))
        .await?;
        self.flag(json!({
            "name": "banner.content", "flag_type": "json", "description": "Goes live by a scheduled change",
            "variants": [{"id": "none", "value": null}, {"id": "sale", "value": {"text": "Sale!", "color": "red"}}],
            "default": {"variant": "none"}, "off_variant": "none",
        }))
        .await
    }

    async fn schedule(&self) -> Result<(), Failure> {
        let input = ScheduleInput {
            scheduled_at: self.core.now().plus_micros(10 * MINUTE),
            serve: Some(Serve::Variant("sale".to_owned())),
            enabled: None,
            description: Some("The sale starts ten minutes after the demo".to_owned()),
        };
        ScheduleService::new(self.core.clone()).create(self.author.clone(), "banner.content", input).await?;
        Ok(())
    }

    async fn overrides(&self, users: &Users) -> Result<(), Failure> {
        let replica = Arc::new(Replica::new(feed::load(self.core.store()).await?));
        let evaluation = Evaluation::new(self.core.clone(), replica);
        let service = UserFlagOverrideService::new(self.core.clone(), evaluation);
        let overrides = [
            (users.ben, "checkout.flow", json!("one-page"), "Beta tester of the new checkout", None),
            (users.ann, "search.max_results", json!(500), "Support: looking into a slow search", Some(60 * MINUTE)),
        ];
        for (user, flag, override_value, reason, ends_in) in overrides {
            let expires_at: Option<Instant> = ends_in.map(|micros| self.core.now().plus_micros(micros));
            let reason = Some(reason.to_owned());
            let input = OverrideInput { override_value, enabled: true, reason, expires_at };
            service.set_override(self.author.clone(), user, flag, input, Precondition::None).await?;
        }
        Ok(())
    }

    async fn token(&self, name: &str, role: Role, user_id: Uuid) -> Result<String, Failure> {
        let input = TokenInput {
            name: format!("demo: {name}"),
            grant: Grant::Role(role),
            user_id: Some(user_id),
            expires_at: None,
        };
        let done = TokenService::new(self.core.clone()).create(self.author.clone(), input).await?;
        Ok(done.output.secret.reveal().to_owned())
    }

    async fn tokens(&self, users: &Users) -> Result<Tokens, Failure> {
        Ok(Tokens {
            admin: self.token("Ada", Role::Admin, users.ada).await?,
            viewer: self.token("Vera", Role::Viewer, users.vera).await?,
            ann: self.token("Ann", Role::User, users.ann).await?,
            ben: self.token("Ben", Role::User, users.ben).await?,
        })
    }
}

fn flag_input(definition: Value) -> Result<FlagInput, serde_json::Error> {
    let mut fields: BTreeMap<String, Value> = serde_json::from_value(definition)?;
    let mut take = |name: &str| fields.remove(name).unwrap_or_default();
    let name: FlagName = serde_json::from_value(take("name"))?;
    Ok(FlagInput {
        name,
        flag_type: serde_json::from_value(take("flag_type"))?,
        description: serde_json::from_value(take("description"))?,
        owner: Some("demo".to_owned()),
        tags: vec!["demo".to_owned()],
        enabled: true,
        variants: serde_json::from_value(take("variants"))?,
        default: serde_json::from_value(take("default"))?,
        off_variant: serde_json::from_value(take("off_variant"))?,
        targeting_rules: serde_json::from_value::<Option<_>>(take("targeting_rules"))?.unwrap_or_default(),
        salt: None,
        client_visible: true,
    })
}

fn print_guide(bind: SocketAddr, users: &Users, tokens: &Tokens) -> Result<(), Failure> {
    let Tokens { admin, viewer, ann, ben } = tokens;
    let base = format!("http://{bind}");
    let ann_id = users.ann;
    let overrides = format!("{base}/api/admin/users/{ann_id}/flag-overrides");
    let password = &users.password;
    let guide = format!(
        "\
DEMO DATA. The tokens below are for this demo alone; a database for real use has none until you make one with
`server token create`.

  ADMIN={admin}   # Ada, may change everything
  VIEWER={viewer}   # Vera, may read everything
  ANN={ann}   # Ann, sees her own flags (paying, override on search.max_results)
  BEN={ben}   # Ben, sees his own flags (override on checkout.flow)

What Ann gets, and why:
  curl -s -H 'Authorization: Bearer {ann}' {base}/api/flags/me

Turn the dark theme on for Ann alone, for one minute:
  curl -s -X POST -H 'Authorization: Bearer {admin}' -H 'Content-Type: application/json' \\
    -d '{{\"flag_name\": \"ui.dark_mode\", \"override_value\": true, \"reason\": \"demo\", \"expires_at\": \"'$(date -u -d '+1 minute' +%FT%TZ)'\"}}' \\
    {overrides}

Ann has it now (and for one minute), Ben has not:
  curl -s -H 'Authorization: Bearer {ann}' {base}/api/flags/me/ui.dark_mode
  curl -s -H 'Authorization: Bearer {ben}' {base}/api/flags/me/ui.dark_mode

Why Ann gets what she gets of one flag, and what comes next:
  curl -s -H 'Authorization: Bearer {viewer}' {base}/api/admin/users/{ann_id}/flags/search.max_results/explanation

What Ann gets, as it changes (Ctrl-C ends it; make a change in another window):
  curl -s -N -H 'Authorization: Bearer {ann}' {base}/api/flags/stream

What switching off all overrides of a flag would do:
  curl -s -X POST -H 'Authorization: Bearer {admin}' -H 'Content-Type: application/json' \\
    -d '{{\"action\": \"disable\", \"filter\": {{\"flag_name\": \"checkout.flow\"}}, \"dry_run\": true}}' \\
    {base}/api/admin/flag-overrides/bulk

All overrides, as a viewer sees them:
  curl -s -H 'Authorization: Bearer {viewer}' {base}/api/admin/flag-overrides

Ada can sign in as the admin UI does (the cookie goes into a file), and sees what was done and by whom:
  curl -s -c ada.cookies -X POST -H 'Content-Type: application/json' \\
    -d '{{\"email\": \"ada@example.com\", \"password\": \"{password}\"}}' {base}/api/auth/login
  curl -s -b ada.cookies '{base}/api/admin/audit-log?limit=3'

Everything else: {base}/docs/
"
    );
    Ok(std::io::stdout().write_all(guide.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_needs_only_what_differs() {
        let input = flag_input(json!({"name": "a", "flag_type": "boolean"})).unwrap();
        assert!(input.variants.is_none() && input.targeting_rules.is_empty());
        assert!(flag_input(json!({"name": "A"})).is_err());
    }
}

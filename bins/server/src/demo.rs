//! The command `demo`: creates users, flags, a scheduled change, overrides and tokens, and prints a guide.

use std::{collections::BTreeMap, io::Write as _, net::SocketAddr, sync::Arc};

use flags_domain::{FlagName, Instant, Serve};
use flags_service::{
    Core, Precondition, change_feed,
    credentials::{
        check::CommandAuthor,
        passwords,
        tokens::{NewToken, TokenService},
    },
    flags::{FlagService, NewFlag},
    overrides::{NewOverride, UserFlagOverrideService},
    replica::Replica,
    schedules::{NewScheduledChange, ScheduleService},
    users::{NewUser, UserService},
};
use flags_store::{Author, DatabaseUrl, api_tokens::TokenGrant, users::Role};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{cli_error::CliError, commands::open};

const MINUTE_MICROS: i64 = 60 * 1_000_000;

/// Fills an empty database with demo data and prints a guide with example requests.
pub(crate) async fn demo(url: &DatabaseUrl, bind: SocketAddr) -> Result<(), CliError> {
    let core = open(url).await?;
    let has_data = {
        let mut conn = core.store().conn().await?;
        flags_store::users::any_exist(&mut conn).await? || !flags_store::flags::load_all(&mut conn).await?.is_empty()
    };
    if has_data {
        return Err(CliError::new("the database is not empty; demo data requires an empty database"));
    }
    let author = Author { actor: "system:demo".to_owned(), request_id: None };
    let author = CommandAuthor::without_credential(author);
    let demo = Demo { core, author };
    let users = demo.create_users().await?;
    demo.create_flags().await?;
    demo.create_scheduled_change().await?;
    demo.create_overrides(&users).await?;
    let tokens = demo.create_tokens(&users).await?;
    print_guide(bind, &users, &tokens)
}

struct Demo {
    core: Core,
    author: CommandAuthor,
}

struct DemoUsers {
    ann: Uuid,
    ben: Uuid,
    /// User with the external id `crm-1001` and without an e-mail address.
    crm: Uuid,
    sam: Uuid,
    vera: Uuid,
    ada: Uuid,
    ada_password: String,
}

struct DemoTokens {
    admin: String,
    support: String,
    viewer: String,
    ann: String,
    ben: String,
}

impl Demo {
    async fn create_user(
        &self,
        name: &str,
        role: Role,
        attributes: Value,
        password: Option<&str>,
    ) -> Result<Uuid, CliError> {
        let email = format!("{}@example.com", name.to_lowercase());
        let display_name = Some(format!("{name} (demo)"));
        let password = password.map(|password| password.to_owned().into());
        let new_user = NewUser { role, password, ..new_user(Some(email), None, display_name, attributes)? };
        self.insert_user(new_user).await
    }

    /// Creates a user with an external id.
    async fn create_external_user(
        &self,
        external_id: &str,
        email: Option<&str>,
        display_name: Option<&str>,
        attributes: Value,
    ) -> Result<Uuid, CliError> {
        let (email, display_name) = (email.map(str::to_owned), display_name.map(str::to_owned));
        self.insert_user(new_user(email, Some(external_id.to_owned()), display_name, attributes)?).await
    }

    async fn insert_user(&self, new_user: NewUser) -> Result<Uuid, CliError> {
        let created = UserService::new(self.core.clone()).create(self.author.clone(), new_user).await?;
        Ok(created.output.record.id)
    }

    async fn create_users(&self) -> Result<DemoUsers, CliError> {
        let ada_password = passwords::generate()?;
        self.create_external_user("crm-1002", Some("cara@example.com"), Some("Cara (demo)"), json!({"plan": "pro"}))
            .await?;
        self.create_external_user("crm-1003", None, None, json!({"plan": "free"})).await?;
        Ok(DemoUsers {
            ann: self.create_user("Ann", Role::User, json!({"plan": "pro", "app_version": "2.4.0"}), None).await?,
            ben: self.create_user("Ben", Role::User, json!({"plan": "free", "app_version": "2.3.1"}), None).await?,
            crm: self.create_external_user("crm-1001", None, Some("Dora (demo)"), json!({"plan": "free"})).await?,
            sam: self.create_user("Sam", Role::Support, json!({}), None).await?,
            vera: self.create_user("Vera", Role::Viewer, json!({}), None).await?,
            ada: self.create_user("Ada", Role::Admin, json!({}), Some(&ada_password)).await?,
            ada_password,
        })
    }

    async fn create_flag(&self, definition: Value) -> Result<(), CliError> {
        let flag = new_flag(definition).map_err(|error| CliError::new(error.to_string()))?;
        FlagService::new(self.core.clone()).create(self.author.clone(), flag).await?;
        Ok(())
    }

    async fn create_flags(&self) -> Result<(), CliError> {
        self.create_flag(json!({
            "name": "ui.dark_mode", "flag_type": "boolean", "description": "Dark theme",
            "variants": [{"id": "on", "value": true}, {"id": "off", "value": false}],
            "default": {"variant": "off"}, "off_variant": "off",
        }))
        .await?;
        self.create_flag(json!({
            "name": "checkout.flow", "flag_type": "string", "description": "New checkout for paying customers",
            "variants": [{"id": "old", "value": "classic"}, {"id": "new", "value": "one-page"}],
            "default": {"weights": {"old": 90, "new": 10}}, "off_variant": "old",
            "targeting_rules": [{"id": "pro", "name": "Paying users", "serve": {"variant": "new"},
                "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}]}],
        }))
        .await?;
        self.create_flag(json!({
            "name": "search.max_results", "flag_type": "number", "description": "More results for newer app versions",
            "variants": [{"id": "few", "value": 20}, {"id": "many", "value": 100}],
            "default": {"variant": "few"}, "off_variant": "few",
            "targeting_rules": [{"id": "new_app", "serve": {"variant": "many"},
                "conditions": [{"attribute": "app_version", "operator": "semver_gte", "values": ["2.4.0"]}]}],
        }))
        .await?;
        self.create_flag(json!({
            "name": "banner.content", "flag_type": "json", "description": "Banner that a scheduled change turns on",
            "variants": [{"id": "none", "value": null}, {"id": "sale", "value": {"text": "Sale!", "color": "red"}}],
            "default": {"variant": "none"}, "off_variant": "none",
        }))
        .await
    }

    async fn create_scheduled_change(&self) -> Result<(), CliError> {
        let change = NewScheduledChange {
            scheduled_at: self.core.now().plus_micros(10 * MINUTE_MICROS),
            serve: Some(Serve::Variant("sale".to_owned())),
            enabled: None,
            description: Some("Start the sale ten minutes after the demo was created".to_owned()),
        };
        ScheduleService::new(self.core.clone()).create(self.author.clone(), "banner.content", change).await?;
        Ok(())
    }

    async fn create_overrides(&self, users: &DemoUsers) -> Result<(), CliError> {
        let replica = Arc::new(Replica::new(change_feed::load(self.core.store()).await?));
        let evaluation = self.core.evaluation(&replica);
        let service = UserFlagOverrideService::new(self.core.clone(), evaluation);
        let overrides = [
            (users.ben, "checkout.flow", json!("one-page"), "Beta tester of the new checkout", None),
            (users.crm, "ui.dark_mode", json!(true), "Asked support for the dark theme", None),
            (users.ann, "search.max_results", json!(500), "Support case: slow search", Some(60 * MINUTE_MICROS)),
        ];
        for (user, flag, override_value, reason, lifetime_micros) in overrides {
            let expires_at: Option<Instant> = lifetime_micros.map(|micros| self.core.now().plus_micros(micros));
            let reason = Some(reason.to_owned());
            let new_override = NewOverride { override_value, enabled: true, reason, expires_at };
            service.set_override(self.author.clone(), user, flag, new_override, Precondition::None).await?;
        }
        Ok(())
    }

    async fn create_token(&self, name: &str, role: Role, user_id: Uuid) -> Result<String, CliError> {
        let new_token = NewToken {
            name: format!("demo: {name}"),
            grant: TokenGrant::Role(role),
            user_id: Some(user_id),
            expires_at: None,
        };
        let created = TokenService::new(self.core.clone()).create(self.author.clone(), new_token).await?;
        Ok(created.output.secret.reveal().to_owned())
    }

    async fn create_tokens(&self, users: &DemoUsers) -> Result<DemoTokens, CliError> {
        Ok(DemoTokens {
            admin: self.create_token("Ada", Role::Admin, users.ada).await?,
            support: self.create_token("Sam", Role::Support, users.sam).await?,
            viewer: self.create_token("Vera", Role::Viewer, users.vera).await?,
            ann: self.create_token("Ann", Role::User, users.ann).await?,
            ben: self.create_token("Ben", Role::User, users.ben).await?,
        })
    }
}

/// Returns an active user with role `user` and without a password.
fn new_user(
    email: Option<String>,
    external_id: Option<String>,
    display_name: Option<String>,
    attributes: Value,
) -> Result<NewUser, CliError> {
    let Value::Object(attributes) = attributes else { return Err(CliError::new("attributes must be an object")) };
    Ok(NewUser { email, external_id, display_name, role: Role::User, attributes, active: true, password: None })
}

/// Parses a flag definition. Missing fields get the defaults of the service.
fn new_flag(definition: Value) -> Result<NewFlag, serde_json::Error> {
    let mut fields: BTreeMap<String, Value> = serde_json::from_value(definition)?;
    let mut take = |name: &str| fields.remove(name).unwrap_or_default();
    let name: FlagName = serde_json::from_value(take("name"))?;
    Ok(NewFlag {
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

fn print_guide(bind: SocketAddr, users: &DemoUsers, tokens: &DemoTokens) -> Result<(), CliError> {
    let DemoTokens { admin, support, viewer, ann, ben } = tokens;
    let base = format!("http://{bind}");
    let ann_id = users.ann;
    let overrides = format!("{base}/api/admin/users/{ann_id}/flag-overrides");
    let password = &users.ada_password;
    let guide = format!(
        "\
The database now contains demo data.

Admin UI: {base}/    Sign in as ada@example.com with the password {password}

Use these API tokens to try the requests below:

  ADMIN={admin}    # Ada, role admin: can change everything
  SUPPORT={support}  # Sam, role support: can read everything and change overrides of users
  VIEWER={viewer}   # Vera, role viewer: can read everything
  ANN={ann}      # Ann, role user: plan pro, override of search.max_results
  BEN={ben}      # Ben, role user: plan free, override of checkout.flow

The tokens are valid for this database only. To create a token for another database, run `server token create`.

1. List the values of all flags for Ann, with the reason for each value:
  curl -s -H 'Authorization: Bearer {ann}' {base}/api/flags/me

2. Turn on the dark theme for Ann for one minute:
  curl -s -X POST -H 'Authorization: Bearer {admin}' -H 'Content-Type: application/json' \\
    -d '{{\"flag_name\": \"ui.dark_mode\", \"override_value\": true, \"reason\": \"demo\", \"expires_at\": \"'$(date -u -d '+1 minute' +%FT%TZ)'\"}}' \\
    {overrides}

3. Compare Ann and Ben. Only Ann has the dark theme:
  curl -s -H 'Authorization: Bearer {ann}' {base}/api/flags/me/ui.dark_mode
  curl -s -H 'Authorization: Bearer {ben}' {base}/api/flags/me/ui.dark_mode

4. Explain step by step how the server evaluates a flag for Ann, and which changes are scheduled:
  curl -s -H 'Authorization: Bearer {viewer}' {base}/api/admin/users/{ann_id}/flags/search.max_results/explanation

5. Watch changes to Ann's flags as they happen. Press Ctrl-C to stop; make a change in a second terminal:
  curl -s -N -H 'Authorization: Bearer {ann}' {base}/api/flags/stream

6. Preview the effect of disabling all overrides of a flag. A dry run changes nothing:
  curl -s -X POST -H 'Authorization: Bearer {admin}' -H 'Content-Type: application/json' \\
    -d '{{\"action\": \"disable\", \"filter\": {{\"flag_name\": \"checkout.flow\"}}, \"dry_run\": true}}' \\
    {base}/api/admin/flag-overrides/bulk

7. List all overrides as a viewer:
  curl -s -H 'Authorization: Bearer {viewer}' {base}/api/admin/flag-overrides

8. Sign in as Ada with a password, as the admin UI does, and read the audit log. The file ada.cookies holds the session:
  curl -s -c ada.cookies -X POST -H 'Content-Type: application/json' \\
    -d '{{\"email\": \"ada@example.com\", \"password\": \"{password}\"}}' {base}/api/auth/login
  curl -s -b ada.cookies '{base}/api/admin/audit-log?limit=3'

9. As support, override a flag for a user that another system names crm-2001. The server creates the user:
  curl -s -X PUT -H 'Authorization: Bearer {support}' -H 'Content-Type: application/json' \\
    -d '{{\"override_value\": true}}' '{base}/api/admin/users/ext:crm-2001/flag-overrides/ui.dark_mode?create_users=true'

API documentation: {base}/docs/
"
    );
    Ok(std::io::stdout().write_all(guide.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_definition_may_omit_optional_fields() {
        let flag = new_flag(json!({"name": "a", "flag_type": "boolean"})).unwrap();
        assert!(flag.variants.is_none() && flag.targeting_rules.is_empty());
        assert!(new_flag(json!({"name": "A"})).is_err());
    }
}

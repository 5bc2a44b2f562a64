//! Options for JWTs of an external issuer.

use clap::Args;
use flags_service::credentials::jwt::{
    ClaimAttribute, JwtAlgorithm, JwtConfig, JwtConfigError, JwtUsers, KeySource, UserClaim,
};
use flags_store::users::Role;

use crate::cli_error::CliError;

/// Issuer whose JWTs the server accepts. JWTs are disabled unless issuer, audience and keys are set.
#[derive(Debug, Args)]
#[command(next_help_heading = "JWTs of an external issuer")]
pub(crate) struct JwtArgs {
    /// Required value of the claim `iss`. To accept JWTs, set --jwt-issuer, --jwt-audience and
    /// --jwt-keys.
    #[arg(long, env = "FLAGS_JWT_ISSUER", value_name = "ISSUER")]
    jwt_issuer: Option<String>,
    /// Audience that the claim `aud` must contain.
    #[arg(long, env = "FLAGS_JWT_AUDIENCE", value_name = "AUDIENCE")]
    jwt_audience: Option<String>,
    /// Public keys of the issuer (JWK Set): a file, an https:// URL, or an http:// URL with a loopback host.
    #[arg(long, env = "FLAGS_JWT_KEYS", value_name = "FILE|URL", hide_env_values = true)]
    jwt_keys: Option<String>,
    /// Comma-separated list of allowed signature algorithms. Supported: RS256, RS384, RS512, PS256, PS384, PS512,
    /// ES256, ES384, EdDSA.
    #[arg(
        long,
        env = "FLAGS_JWT_ALGORITHM",
        value_name = "ALGORITHM",
        value_delimiter = ',',
        default_value = "RS256",
        value_parser = algorithm
    )]
    jwt_algorithm: Vec<JwtAlgorithm>,
    /// Claim that identifies the user. The value of `sub` must be a user id or external id; the value of any other claim
    /// can also be an e-mail address.
    #[arg(long, env = "FLAGS_JWT_USER_CLAIM", value_name = "CLAIM", default_value = "sub")]
    jwt_user_claim: String,
    /// Claim that contains roles, such as realm_access.roles. By default, the role stored for the user applies.
    #[arg(long, env = "FLAGS_JWT_ROLE_CLAIM", value_name = "CLAIM")]
    jwt_role_claim: Option<String>,
    /// Comma-separated mapping from values of the role claim to the roles admin, support, viewer and user, such as
    /// flag-admins=admin. Unlisted values map to the role user.
    #[arg(
        long,
        env = "FLAGS_JWT_ROLE",
        value_name = "VALUE=ROLE",
        value_delimiter = ',',
        value_parser = allowed_role
    )]
    jwt_role: Vec<(String, Role)>,
    /// Users whose JWTs are accepted: `known` (stored users only) or `any`. With `any`, users that are not stored have
    /// the role user and may only read and evaluate their own flags.
    #[arg(long, env = "FLAGS_JWT_USERS", value_name = "USERS", default_value = "known", value_parser = accepted_users)]
    jwt_users: JwtUsers,
    /// Comma-separated list of attributes to read from claims, such as plan=/plan,country=/address/country. A JSON
    /// Pointer (RFC 6901) locates each claim. These attributes take precedence over stored attributes.
    #[arg(
        long,
        env = "FLAGS_JWT_ATTRIBUTES",
        value_name = "NAME=POINTER",
        value_delimiter = ',',
        value_parser = ClaimAttribute::parse
    )]
    jwt_attributes: Vec<ClaimAttribute>,
}

impl JwtArgs {
    /// Returns the configuration, or `None` if JWTs are disabled.
    pub(crate) fn config(&self) -> Result<Option<JwtConfig>, CliError> {
        let (issuer, audience, keys) = match (&self.jwt_issuer, &self.jwt_audience, &self.jwt_keys) {
            (None, None, None) => return self.disabled(),
            (Some(issuer), Some(audience), Some(keys)) => (issuer.clone(), audience.clone(), keys),
            _ => {
                return Err(CliError::new("--jwt-issuer, --jwt-audience and --jwt-keys must be used together"));
            }
        };
        let user_claim = match self.jwt_user_claim.as_str() {
            "sub" => UserClaim::Sub,
            other => UserClaim::Named(other.to_owned()),
        };
        Ok(Some(JwtConfig {
            issuer,
            audience,
            keys: KeySource::parse(keys)?,
            algorithms: self.jwt_algorithm.clone(),
            user_claim,
            role_claim: self.jwt_role_claim.clone(),
            allowed_roles: self.jwt_role.clone(),
            users: self.jwt_users,
            attributes: self.jwt_attributes.clone(),
        }))
    }

    /// Returns `None`. Fails if options are set that have an effect only with JWTs enabled.
    fn disabled(&self) -> Result<Option<JwtConfig>, CliError> {
        if self.jwt_users == JwtUsers::Any || !self.jwt_attributes.is_empty() {
            return Err(CliError::new(
                "--jwt-users and --jwt-attributes require --jwt-issuer, --jwt-audience and --jwt-keys",
            ));
        }
        if self.jwt_role_claim.is_some() || !self.jwt_role.is_empty() {
            return Err(CliError::new(
                "--jwt-role-claim and --jwt-role require --jwt-issuer, --jwt-audience and --jwt-keys",
            ));
        }
        Ok(None)
    }
}

impl From<JwtConfigError> for CliError {
    fn from(error: JwtConfigError) -> Self {
        Self::new(error.to_string())
    }
}

fn algorithm(text: &str) -> Result<JwtAlgorithm, String> {
    JwtAlgorithm::parse(text).ok_or_else(|| {
        let supported: Vec<_> = JwtAlgorithm::ALL.iter().map(|algorithm| algorithm.as_str()).collect();
        format!("must be one of {}", supported.join(", "))
    })
}

fn accepted_users(text: &str) -> Result<JwtUsers, &'static str> {
    match text {
        "known" => Ok(JwtUsers::Known),
        "any" => Ok(JwtUsers::Any),
        _ => Err("must be known or any"),
    }
}

/// Parses `VALUE=ROLE`. The value may contain equals signs.
fn allowed_role(text: &str) -> Result<(String, Role), String> {
    let (value, role) = text.rsplit_once('=').ok_or("must be VALUE=ROLE, such as flag-admins=admin")?;
    let role = Role::parse(role).ok_or("the role must be admin, support, viewer or user")?;
    Ok((value.to_owned(), role))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        jwt: JwtArgs,
    }

    fn config(arguments: &str) -> Result<Option<JwtConfig>, String> {
        let cli = TestCli::try_parse_from(std::iter::once("server").chain(arguments.split_whitespace()));
        cli.map_err(|error| error.to_string())?.jwt.config().map_err(|error| error.to_string())
    }

    const REQUIRED: &str = "--jwt-issuer i --jwt-audience a --jwt-keys keys.json";

    #[test]
    fn issuer_audience_and_keys_must_be_used_together() {
        assert!(config("").unwrap().is_none());
        let config_with_defaults = config(REQUIRED).unwrap().unwrap();
        assert_eq!(config_with_defaults.algorithms, [JwtAlgorithm::Rs256]);
        assert_eq!(config_with_defaults.user_claim, UserClaim::Sub);
        for incomplete in ["--jwt-issuer i", "--jwt-audience a --jwt-keys k", "--jwt-issuer i --jwt-keys k"] {
            assert!(config(incomplete).unwrap_err().contains("must be used together"), "{incomplete}");
        }
        assert_eq!((config_with_defaults.users, config_with_defaults.attributes), (JwtUsers::Known, Vec::new()));
        for dependent in ["--jwt-role a=admin", "--jwt-users any", "--jwt-attributes plan=/plan"] {
            assert!(config(dependent).unwrap_err().contains("require --jwt-issuer"), "{dependent}");
        }
    }

    #[test]
    fn list_options_accept_commas_and_repetition() {
        let arguments = format!(
            "{REQUIRED} --jwt-algorithm ES256,EdDSA --jwt-algorithm PS512 --jwt-user-claim email \
             --jwt-role-claim realm_access.roles --jwt-role a=admin,cn=b=viewer \
             --jwt-users any --jwt-attributes plan=/plan,country=/address/country --jwt-attributes x=/a=b"
        );
        let config = config(&arguments).unwrap().unwrap();
        assert_eq!(config.algorithms, [JwtAlgorithm::Es256, JwtAlgorithm::EdDsa, JwtAlgorithm::Ps512]);
        assert_eq!(config.user_claim, UserClaim::Named("email".to_owned()));
        assert_eq!(config.allowed_roles, [("a".to_owned(), Role::Admin), ("cn=b".to_owned(), Role::Viewer)]);
        assert_eq!(config.users, JwtUsers::Any);
        let attributes = ["plan=/plan", "country=/address/country", "x=/a=b"];
        assert_eq!(config.attributes, attributes.map(|text| ClaimAttribute::parse(text).unwrap()));
    }

    #[test]
    fn rejects_invalid_jwt_options() {
        for (arguments, message) in [
            ("--jwt-algorithm HS256", "must be one of RS256"),
            ("--jwt-algorithm none", "must be one of RS256"),
            ("--jwt-role admin", "VALUE=ROLE"),
            ("--jwt-role a=root", "admin, support, viewer or user"),
            ("--jwt-users all", "must be known or any"),
            ("--jwt-attributes plan", "must be NAME=POINTER"),
            ("--jwt-attributes plan=plan", "JSON Pointer (RFC 6901)"),
            ("--jwt-attributes mail=/email,email=/email", "email is a built-in attribute; choose another name"),
        ] {
            assert!(config(&format!("{REQUIRED} {arguments}")).unwrap_err().contains(message), "{arguments}");
        }
        let error = config("--jwt-issuer i --jwt-audience a --jwt-keys http://issuer.example/jwks").unwrap_err();
        assert!(error.contains("must use https://"), "{error}");
    }
}

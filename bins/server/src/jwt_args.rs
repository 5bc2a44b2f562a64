//! The options of JWTs.

use clap::Args;
use flags_service::credentials::jwt::{JwtAlgorithm, JwtConfig, JwtConfigError, KeySource, UserClaim};
use flags_store::users::Role;

use crate::failure::Failure;

/// Whose JWTs are accepted as credentials, beside API tokens: nobody's unless issuer, audience and keys are given.
#[derive(Debug, Args)]
#[command(next_help_heading = "JWTs of an external issuer")]
pub(crate) struct JwtArgs {
    /// The `iss` that JWTs must have.
    #[arg(long, env = "FLAGS_JWT_ISSUER")]
    jwt_issuer: Option<String>,
    /// The `aud` that JWTs must have, alone or among others.
    #[arg(long, env = "FLAGS_JWT_AUDIENCE")]
    jwt_audience: Option<String>,
    /// The issuer's keys (JWK Set): a file, or a URL (`https://`, or `http://` on this host).
    #[arg(long, env = "FLAGS_JWT_KEYS", value_name = "FILE|URL", hide_env_values = true)]
    jwt_keys: Option<String>,
    /// How JWTs may be signed: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA; several with commas.
    #[arg(
        long,
        env = "FLAGS_JWT_ALGORITHM",
        value_name = "ALGORITHM",
        value_delimiter = ',',
        default_value = "RS256",
        value_parser = algorithm
    )]
    jwt_algorithm: Vec<JwtAlgorithm>,
    /// The claim that names the user: by id, or by e-mail unless it is `sub`.
    #[arg(long, env = "FLAGS_JWT_USER_CLAIM", value_name = "CLAIM", default_value = "sub")]
    jwt_user_claim: String,
    /// The claim that holds roles, such as realm_access.roles; without it a caller has their user's role.
    #[arg(long, env = "FLAGS_JWT_ROLE_CLAIM", value_name = "CLAIM")]
    jwt_role_claim: Option<String>,
    /// A value of the role claim and the role it stands for (admin, viewer, user); several with commas. Others count as user.
    #[arg(
        long,
        env = "FLAGS_JWT_ROLE",
        value_name = "VALUE=ROLE",
        value_delimiter = ',',
        value_parser = allowed_role
    )]
    jwt_role: Vec<(String, Role)>,
}

impl JwtArgs {
    /// What is configured, if anything is.
    pub(crate) fn config(&self) -> Result<Option<JwtConfig>, Failure> {
        let (issuer, audience, keys) = match (&self.jwt_issuer, &self.jwt_audience, &self.jwt_keys) {
            (None, None, None) => return self.nothing(),
            (Some(issuer), Some(audience), Some(keys)) => (issuer.clone(), audience.clone(), keys),
            _ => return Err(Failure::new("--jwt-issuer, --jwt-audience and --jwt-keys go together; give all or none")),
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
        }))
    }

    /// Nothing, as long as nothing hangs in the air.
    fn nothing(&self) -> Result<Option<JwtConfig>, Failure> {
        if self.jwt_role_claim.is_some() || !self.jwt_role.is_empty() {
            return Err(Failure::new("roles of JWTs need --jwt-issuer, --jwt-audience and --jwt-keys"));
        }
        Ok(None)
    }
}

impl From<JwtConfigError> for Failure {
    fn from(error: JwtConfigError) -> Self {
        Self::new(error.to_string())
    }
}

fn algorithm(text: &str) -> Result<JwtAlgorithm, String> {
    JwtAlgorithm::parse(text).ok_or_else(|| {
        let known: Vec<_> = JwtAlgorithm::ALL.iter().map(|algorithm| algorithm.as_str()).collect();
        format!("must be one of {}", known.join(", "))
    })
}

/// The value may have an equals sign of its own.
fn allowed_role(text: &str) -> Result<(String, Role), String> {
    let (value, role) = text.rsplit_once('=').ok_or("must be VALUE=ROLE, such as flag-admins=admin")?;
    let role = Role::parse(role).ok_or("the role must be admin, viewer or user")?;
    Ok((value.to_owned(), role))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        jwt: JwtArgs,
    }

    fn config(line: &str) -> Result<Option<JwtConfig>, String> {
        let line = Line::try_parse_from(std::iter::once("x").chain(line.split_whitespace()));
        line.map_err(|error| error.to_string())?.jwt.config().map_err(|failure| failure.to_string())
    }

    const WHOLE: &str = "--jwt-issuer i --jwt-audience a --jwt-keys keys.json";

    #[test]
    fn issuer_audience_and_keys_go_together() {
        assert!(config("").unwrap().is_none());
        let whole = config(WHOLE).unwrap().unwrap();
        assert_eq!((whole.algorithms, whole.user_claim), (vec![JwtAlgorithm::Rs256], UserClaim::Sub));
        for part in ["--jwt-issuer i", "--jwt-audience a --jwt-keys k", "--jwt-issuer i --jwt-keys k"] {
            assert!(config(part).unwrap_err().contains("go together"), "{part}");
        }
        assert!(config("--jwt-role a=admin").unwrap_err().contains("roles of JWTs need"));
    }

    #[test]
    fn lists_are_separated_by_commas_or_given_again() {
        let line = format!(
            "{WHOLE} --jwt-algorithm ES256,EdDSA --jwt-algorithm PS512 --jwt-user-claim email \
             --jwt-role-claim realm_access.roles --jwt-role a=admin,cn=b=viewer"
        );
        let config = config(&line).unwrap().unwrap();
        assert_eq!(config.algorithms, [JwtAlgorithm::Es256, JwtAlgorithm::EdDsa, JwtAlgorithm::Ps512]);
        assert_eq!(config.user_claim, UserClaim::Named("email".to_owned()));
        assert_eq!(config.allowed_roles, [("a".to_owned(), Role::Admin), ("cn=b".to_owned(), Role::Viewer)]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (more, why) in [
            ("--jwt-algorithm HS256", "must be one of RS256"),
            ("--jwt-algorithm none", "must be one of RS256"),
            ("--jwt-role admin", "VALUE=ROLE"),
            ("--jwt-role a=root", "admin, viewer or user"),
        ] {
            assert!(config(&format!("{WHOLE} {more}")).unwrap_err().contains(why), "{more}");
        }
        let plain = config("--jwt-issuer i --jwt-audience a --jwt-keys http://issuer.example/jwks").unwrap_err();
        assert!(plain.contains("https:// only"), "{plain}");
    }
}

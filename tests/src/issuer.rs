//! A JWT issuer for tests: key pairs, valid and invalid JWTs, and an HTTP server that publishes keys.

use std::{
    fs,
    io::Write as _,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, web};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flags_service::credentials::jwt::{JwtAlgorithm, JwtConfig, JwtUsers, KeySource, UserClaim};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

pub const ISSUER: &str = "https://issuer.example";
pub const AUDIENCE: &str = "flags";

/// Loads `tests/keys/test-<name>.der`.
pub fn private_key(name: &str) -> EncodingKey {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("keys/test-{name}.der"));
    let der = fs::read(path).expect("key file can be read");
    match name {
        "rsa" | "rsa-other" => EncodingKey::from_rsa_der(&der),
        "ed25519" => EncodingKey::from_ed_der(&der),
        _ => EncodingKey::from_ec_der(&der),
    }
}

/// Returns the public key of a key pair as a JSON Web Key.
pub fn jwk(key: &EncodingKey, algorithm: Algorithm, id: &str) -> Value {
    let jwk = Jwk::from_encoding_key(key, algorithm).expect("key fits the algorithm");
    let mut jwk = serde_json::to_value(jwk).expect("JWK can be serialized");
    jwk["kid"] = json!(id);
    jwk["use"] = json!("sig");
    jwk
}

/// Returns a JWK Set document.
pub fn jwk_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// Encodes one part of a JWT as base64url without padding.
pub fn base64url(part: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(part)
}

/// Signs a JWT. The header may name an algorithm other than the one that signs.
pub fn sign_jwt(key: &EncodingKey, algorithm: Algorithm, header: impl ToString, claims: impl ToString) -> String {
    let message = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
    let signature = crypto::sign(message.as_bytes(), key, algorithm).expect("message can be signed");
    format!("{message}.{signature}")
}

/// Returns a configuration for JWTs of [`ISSUER`] whose `sub` claim is a user id or an external id. The caller has the
/// role of the user.
pub fn jwt_config(keys: KeySource, algorithms: &[JwtAlgorithm]) -> JwtConfig {
    JwtConfig {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        keys,
        algorithms: algorithms.to_vec(),
        user_claim: UserClaim::Sub,
        role_claim: None,
        allowed_roles: Vec::new(),
        users: JwtUsers::Known,
        attributes: Vec::new(),
    }
}

/// Command-line arguments of a server that accepts JWTs signed with the keys in a file.
pub fn jwt_arguments(keys: &NamedTempFile) -> [&str; 6] {
    let path = keys.path().to_str().expect("path is valid UTF-8");
    ["--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--jwt-keys", path]
}

/// Writes a key document to a temporary file, which is deleted when the returned handle is dropped.
pub fn write_key_file(content: &str) -> (NamedTempFile, KeySource) {
    let mut file = NamedTempFile::new().expect("temporary file can be created");
    file.write_all(content.as_bytes()).expect("temporary file can be written");
    let source = KeySource::File(file.path().to_owned());
    (file, source)
}

/// Response of a [`KeyServer`] to requests for `/keys`.
#[derive(Clone, Debug)]
pub enum KeyServerResponse {
    Document(String),
    Status(u16),
    Redirect(String),
    /// A body of this number of bytes, which is not a key document.
    Large(usize),
    /// The server never responds.
    Silence,
}

/// A server that publishes keys at `/keys`. `/moved/<n>` reaches `/keys` through `n` redirects (at least one).
pub struct KeyServer {
    response: Arc<Mutex<KeyServerResponse>>,
    request_count: Arc<AtomicUsize>,
    pub base_url: String,
    server: ServerHandle,
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        let server = self.server.clone();
        tokio::spawn(async move { server.stop(false).await });
    }
}

impl KeyServer {
    pub fn start(response: KeyServerResponse) -> Self {
        let (response, request_count) = (Arc::new(Mutex::new(response)), Arc::new(AtomicUsize::new(0)));
        let shared = (Arc::clone(&response), Arc::clone(&request_count));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(shared.clone()))
                .route("/keys", web::get().to(serve_keys))
                .route("/moved/{redirects}", web::get().to(redirect_towards_keys))
        });
        let server = server.workers(1).disable_signals().bind("127.0.0.1:0").expect("a port is free");
        let base_url = format!("http://{}", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        Self { response, request_count, base_url, server: handle }
    }

    pub fn source(&self, path: &str) -> KeySource {
        KeySource::parse(&format!("{}{path}", self.base_url)).expect("URL is valid")
    }

    pub fn set_response(&self, response: KeyServerResponse) {
        *self.response.lock().expect("lock is not poisoned") = response;
    }

    /// Returns the number of requests for `/keys`.
    pub fn request_count(&self) -> usize {
        self.request_count.load(Ordering::SeqCst)
    }
}

type KeyServerState = web::Data<(Arc<Mutex<KeyServerResponse>>, Arc<AtomicUsize>)>;

async fn serve_keys(state: KeyServerState) -> HttpResponse {
    state.1.fetch_add(1, Ordering::SeqCst);
    let response = state.0.lock().expect("lock is not poisoned").clone();
    match response {
        KeyServerResponse::Document(text) => HttpResponse::Ok().content_type("application/jwk-set+json").body(text),
        KeyServerResponse::Status(status) => HttpResponse::build(status.try_into().expect("status is valid")).finish(),
        KeyServerResponse::Redirect(location) => redirect(&location),
        KeyServerResponse::Large(bytes) => HttpResponse::Ok().body(" ".repeat(bytes)),
        KeyServerResponse::Silence => std::future::pending().await,
    }
}

async fn redirect_towards_keys(redirects: web::Path<usize>) -> HttpResponse {
    match redirects.into_inner() {
        0 | 1 => redirect("/keys"),
        remaining => redirect(&format!("/moved/{}", remaining - 1)),
    }
}

fn redirect(location: &str) -> HttpResponse {
    HttpResponse::Found().insert_header(("location", location)).finish()
}

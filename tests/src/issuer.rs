//! An issuer of JWTs: keys made for tests, tokens however wrong, and a server that publishes keys.

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
use flags_service::credentials::jwt::{JwtAlgorithm, JwtConfig, KeySource, UserClaim};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

pub const ISSUER: &str = "https://issuer.example";
pub const AUDIENCE: &str = "flags";

/// A key of `tests/keys`.
pub fn key(name: &str) -> EncodingKey {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("keys/test-{name}.der"));
    let der = fs::read(path).expect("a key");
    match name {
        "rsa" | "rsa-other" => EncodingKey::from_rsa_der(&der),
        "ed25519" => EncodingKey::from_ed_der(&der),
        _ => EncodingKey::from_ec_der(&der),
    }
}

/// The public half of a key, as issuers publish it.
pub fn jwk(key: &EncodingKey, algorithm: Algorithm, id: &str) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, algorithm).expect("a JWK")).expect("JSON");
    jwk["kid"] = json!(id);
    jwk["use"] = json!("sig");
    jwk
}

/// A JWK Set.
pub fn document(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// A part of a token.
pub fn encode(part: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(part)
}

/// A token of this header and these claims, signed.
pub fn sign(key: &EncodingKey, algorithm: Algorithm, header: impl ToString, claims: impl ToString) -> String {
    let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let signature = crypto::sign(message.as_bytes(), key, algorithm).expect("a signature");
    format!("{message}.{signature}")
}

/// A configuration with these keys, by which `sub` names the user.
pub fn config(keys: KeySource, algorithms: &[JwtAlgorithm]) -> JwtConfig {
    JwtConfig {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        keys,
        algorithms: algorithms.to_vec(),
        user_claim: UserClaim::Sub,
        role_claim: None,
        allowed_roles: Vec::new(),
    }
}

/// The arguments by which a server trusts the keys in a file.
pub fn arguments(keys: &NamedTempFile) -> [&str; 6] {
    let path = keys.path().to_str().expect("a path in UTF-8");
    ["--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--jwt-keys", path]
}

/// A file with this content, gone with what is returned.
pub fn file(content: &str) -> (NamedTempFile, KeySource) {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(content.as_bytes()).expect("a full disk is no test");
    let source = KeySource::File(file.path().to_owned());
    (file, source)
}

/// What the server that publishes keys answers.
#[derive(Clone, Debug)]
pub enum Answer {
    Document(String),
    Status(u16),
    Redirect(String),
    /// So many bytes.
    Large(usize),
    /// Nothing, for as long as it takes.
    Silence,
}

/// A server that publishes keys at `/keys`, and at `/moved/<n>` after `n` redirects.
pub struct KeyServer {
    pub answer: Arc<Mutex<Answer>>,
    hits: Arc<AtomicUsize>,
    pub base: String,
    server: ServerHandle,
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        let server = self.server.clone();
        tokio::spawn(async move { server.stop(false).await });
    }
}

impl KeyServer {
    pub fn start(answer: Answer) -> Self {
        let (answer, hits) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let shared = (Arc::clone(&answer), Arc::clone(&hits));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(shared.clone()))
                .route("/keys", web::get().to(keys))
                .route("/moved/{left}", web::get().to(moved))
        });
        let server = server.workers(1).disable_signals().bind("127.0.0.1:0").expect("a free port");
        let base = format!("http://{}", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        Self { answer, hits, base, server: handle }
    }

    pub fn source(&self, path: &str) -> KeySource {
        KeySource::parse(&format!("{}{path}", self.base)).expect("a URL")
    }

    pub fn set(&self, answer: Answer) {
        *self.answer.lock().expect("no panic") = answer;
    }

    /// How often keys were asked for.
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

type Shared = web::Data<(Arc<Mutex<Answer>>, Arc<AtomicUsize>)>;

async fn keys(shared: Shared) -> HttpResponse {
    shared.1.fetch_add(1, Ordering::SeqCst);
    let answer = shared.0.lock().expect("no panic").clone();
    match answer {
        Answer::Document(text) => HttpResponse::Ok().content_type("application/jwk-set+json").body(text),
        Answer::Status(status) => HttpResponse::build(status.try_into().expect("a status")).finish(),
        Answer::Redirect(to) => redirect(&to),
        Answer::Large(bytes) => HttpResponse::Ok().body(" ".repeat(bytes)),
        Answer::Silence => std::future::pending().await,
    }
}

async fn moved(left: web::Path<usize>) -> HttpResponse {
    match left.into_inner() {
        0 | 1 => redirect("/keys"),
        left => redirect(&format!("/moved/{}", left - 1)),
    }
}

fn redirect(to: &str) -> HttpResponse {
    HttpResponse::Found().insert_header(("location", to)).finish()
}

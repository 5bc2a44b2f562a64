//! Throughput of `GET /api/flags/me` with 100 flags, compared with an actix handler that returns a static body of the
//! same size.
//!
//! The rounds of the two servers alternate. Server and load generator share the machine, so only the ratio is
//! meaningful.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "benchmark")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant as Moment},
};

use actix_web::{HttpServer, web};
use flags_api::{App, RateLimits, Settings, serve};
use flags_domain::{FlagName, FlagType, Serve, Weight};
use flags_service::{
    Precondition, Runtime, SystemClock,
    credentials::{
        check::CommandAuthor,
        tokens::{NewToken, TokenService},
    },
    flags::{FlagService, NewFlag},
    overrides::{NewOverride, UserFlagOverrideService},
    users::{NewUser, UserService},
};
use flags_store::{Author, Store, api_tokens::TokenGrant, users::Role};
use serde_json::json;

const FLAGS: usize = 100;
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 7;
const ROUND_DURATION: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    let (_runtime, address, token) = start_service(&directory.path().join("flags.db").display().to_string()).await;
    let request = format!("GET /api/flags/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    let body_bytes = Client::new(address).send(&request);
    let static_address = start_static_server(body_bytes);
    let (mut service_rates, mut static_rates) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        service_rates.push(measure(address, &request).await);
        static_rates.push(measure(static_address, &request).await);
    }
    let (service_rate, static_rate) = (median(&mut service_rates), median(&mut static_rates));
    println!(
        "{FLAGS} flags ({body_bytes} bytes per body), {CONNECTIONS} connections, 1 server thread; \
         medians of {ROUNDS} alternating rounds of {ROUND_DURATION:?}:"
    );
    println!("  /api/flags/me   {service_rate:>9.0} requests/s   {:>6.1} us per request", 1e6 / service_rate);
    println!("  static body     {static_rate:>9.0} requests/s   {:>6.1} us per request", 1e6 / static_rate);
    println!("  ratio           {:>9.2}", service_rate / static_rate);
}

/// Starts the service with flags of several kinds and a user with ten overrides. Returns its runtime, its address and a
/// token of the user.
async fn start_service(path: &str) -> (Runtime, SocketAddr, String) {
    let store = Store::open(&format!("sqlite://{path}").parse().unwrap()).await.unwrap();
    store.migrate().await.unwrap();
    let runtime = Runtime::start(store, Arc::new(SystemClock::default())).await.unwrap();
    let core = &runtime.core;
    let author = Author { actor: "system:bench".to_owned(), request_id: None };
    let author = CommandAuthor::without_credential(author);
    for number in 0..FLAGS {
        FlagService::new(core.clone()).create(author.clone(), flag(number)).await.unwrap();
    }
    let user = NewUser {
        email: "ann@example.com".to_owned(),
        display_name: None,
        role: Role::User,
        attributes: [("plan".to_owned(), json!("pro"))].into_iter().collect(),
        active: true,
        password: None,
    };
    let id = UserService::new(core.clone()).create(author.clone(), user).await.unwrap().output.record.id;
    let overrides = UserFlagOverrideService::new(core.clone(), runtime.evaluation.clone());
    for number in 0..10 {
        let input = NewOverride { override_value: json!("mine"), enabled: true, reason: None, expires_at: None };
        let name = format!("area.flag{number}");
        overrides.set_override(author.clone(), id, &name, input, Precondition::None).await.unwrap();
    }
    let input =
        NewToken { name: "bench".to_owned(), grant: TokenGrant::Role(Role::User), user_id: Some(id), expires_at: None };
    let token = TokenService::new(core.clone()).create(author, input).await.unwrap().output.secret.reveal().to_owned();
    // All requests use one credential, so the limits are disabled.
    let rate_limits = RateLimits { requests: 0, evaluations: 0, anonymous: 0 };
    let settings = Settings { metrics_with_api: true, workers: 1, rate_limits, ..Settings::default() };
    let app = App::new(&runtime, None, settings);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(&app, listener).unwrap());
    (runtime, address, token)
}

fn flag(number: usize) -> NewFlag {
    let variant = |id: &str, value: &str| flags_domain::Variant {
        id: id.to_owned(),
        name: None,
        value: json!(value),
        description: None,
    };
    let half = Weight::from_thousandths(50_000).unwrap();
    let split = Serve::Split { weights: [("a".to_owned(), half), ("b".to_owned(), half)].into(), bucket_by: None };
    let rule = json!({"id": "r", "serve": {"variant": "b"},
        "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}]});
    NewFlag {
        name: FlagName::new(&format!("area.flag{number}")).unwrap(),
        flag_type: FlagType::String,
        description: None,
        owner: None,
        tags: Vec::new(),
        enabled: true,
        variants: Some(vec![variant("a", "classic"), variant("b", "one-page")]),
        default: Some(if number.is_multiple_of(3) { split } else { Serve::Variant("a".to_owned()) }),
        off_variant: Some("a".to_owned()),
        targeting_rules: if number % 3 == 1 { vec![serde_json::from_value(rule).unwrap()] } else { Vec::new() },
        salt: None,
        client_visible: true,
    }
}

/// Starts a server whose handler returns a static body of `body_bytes` bytes.
fn start_static_server(body_bytes: usize) -> SocketAddr {
    let body = web::Bytes::from(vec![b'x'; body_bytes]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = HttpServer::new(move || {
        let body = body.clone();
        let handler = move || {
            let body = body.clone();
            async move { body }
        };
        actix_web::App::new().route("/api/flags/me", web::get().to(handler))
    });
    tokio::spawn(server.workers(1).disable_signals().listen(listener).unwrap().run());
    address
}

/// Measures the requests per second over one round.
async fn measure(address: SocketAddr, request: &str) -> f64 {
    let request = request.to_owned();
    let started_at = Moment::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let request = request.clone();
            thread::spawn(move || {
                let mut client = Client::new(address);
                let mut count = 0_u32;
                while started_at.elapsed() < ROUND_DURATION {
                    client.send(&request);
                    count += 1;
                }
                count
            })
        })
        .collect();
    let joined =
        tokio::task::spawn_blocking(move || clients.into_iter().map(|client| client.join().unwrap()).sum::<u32>());
    f64::from(joined.await.unwrap()) / started_at.elapsed().as_secs_f64()
}

/// HTTP/1.1 client with one keep-alive connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends a request and returns the length of the response body.
    fn send(&mut self, request: &str) -> usize {
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut line, mut length) = (String::new(), 0);
        self.0.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        std::io::copy(&mut self.0.by_ref().take(length as u64), &mut std::io::sink()).unwrap();
        length
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

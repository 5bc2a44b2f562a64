//! Compares the throughput of `GET /api/flags/me` for 100 flags to the throughput of an actix handler that returns a
//! static body of the same size.
//!
//! The rounds of the two servers alternate. Server and load generator share the machine, so only the ratio is
//! meaningful.
//!
//! Then measures the latency of the same requests while another user evaluates flags and attributes that are as
//! expensive as the limits allow.
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
    Core, Precondition, Runtime, SystemClock,
    credentials::{
        check::CommandAuthor,
        tokens::{NewToken, TokenService},
    },
    flags::{FlagService, NewFlag},
    overrides::{NewOverride, UserFlagOverrideService},
    users::{NewUser, UserService},
};
use flags_store::{Author, Store, api_tokens::TokenGrant, users::Role};
use serde_json::{Value, json};
use uuid::Uuid;

const FLAGS: usize = 100;
const EXPENSIVE_FLAGS: usize = 30;
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 7;
const ROUND_DURATION: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    let service = start_service(&directory.path().join("flags.db").display().to_string()).await;
    let (address, token) = (service.address, &service.token);
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
    print_effect_of_expensive_evaluations(&service, &request).await;
}

/// Prints the latency of a user's requests, alone and while another user sends expensive requests.
async fn print_effect_of_expensive_evaluations(service: &Service, request: &str) {
    let attacker_token = create_expensive_flags(service).await;
    let attack = format!("GET /api/flags/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {attacker_token}\r\n\r\n");
    let expensive = measure_latencies(service.address, &attack, None).await;
    println!("  expensive user  {}", describe_latencies(expensive));
    let alone = measure_latencies(service.address, request, None).await;
    println!("  other user      {} alone", describe_latencies(alone));
    let beside = measure_latencies(service.address, request, Some(&attack)).await;
    println!("  other user      {} beside one connection of the expensive user", describe_latencies(beside));
}

/// Creates flags and a user that are expensive to evaluate. Returns a token of the user.
async fn create_expensive_flags(service: &Service) -> String {
    let core = &service.runtime.core;
    for number in 0..EXPENSIVE_FLAGS {
        let condition = json!({"attribute": "x", "operator": "matches", "values": ["(?:[ab]*a[ab]{9}){20}[^a-z]"]});
        let rule = json!({"id": "r", "serve": {"variant": "b"}, "conditions": [condition]});
        let rule = serde_json::from_value(rule).unwrap();
        let name = FlagName::new(&format!("expensive.flag{number}")).unwrap();
        let new_flag = NewFlag { name, targeting_rules: vec![rule], ..flag(number) };
        FlagService::new(core.clone()).create(author(), new_flag).await.unwrap();
    }
    let texts: Vec<_> = (0..150).map(|seed| random_text(seed, 400)).collect();
    create_user(core, "eve@example.com", json!(texts)).await.1
}

fn random_text(seed: u32, length: usize) -> String {
    let mut state = seed;
    let mut letter = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 { 'a' } else { 'b' }
    };
    (0..length).map(|_| letter()).collect()
}

/// Sends `request` repeatedly on one connection for one round, and returns the latencies. A second connection sends
/// `beside` repeatedly at the same time.
async fn measure_latencies(address: SocketAddr, request: &str, beside: Option<&str>) -> Vec<Duration> {
    let send = move |request: String| {
        thread::spawn(move || {
            let (started_at, mut client, mut latencies) = (Moment::now(), Client::new(address), Vec::new());
            while started_at.elapsed() < ROUND_DURATION {
                let sent_at = Moment::now();
                client.send(&request);
                latencies.push(sent_at.elapsed());
            }
            latencies
        })
    };
    let beside = beside.map(|request| send(request.to_owned()));
    let measured = send(request.to_owned());
    tokio::task::spawn_blocking(move || {
        beside.map(|thread| thread.join().unwrap());
        measured.join().unwrap()
    })
    .await
    .unwrap()
}

fn describe_latencies(mut latencies: Vec<Duration>) -> String {
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    format!("p50 {:>9.2?}, p99 {:>9.2?} of {} requests", at(50), at(99), latencies.len())
}

/// A running server with one user.
struct Service {
    runtime: Runtime,
    address: SocketAddr,
    /// API token of the user.
    token: String,
}

fn author() -> CommandAuthor {
    CommandAuthor::without_credential(Author { actor: "system:bench".to_owned(), request_id: None })
}

/// Creates a user with the attributes `plan` and `x`, and returns the id and a token.
async fn create_user(core: &Core, email: &str, x: Value) -> (Uuid, String) {
    let user = NewUser {
        email: Some(email.to_owned()),
        external_id: None,
        display_name: None,
        role: Role::User,
        attributes: [("plan".to_owned(), json!("pro")), ("x".to_owned(), x)].into_iter().collect(),
        active: true,
        password: None,
    };
    let id = UserService::new(core.clone()).create(author(), user).await.unwrap().output.record.id;
    let input =
        NewToken { name: "bench".to_owned(), grant: TokenGrant::Role(Role::User), user_id: Some(id), expires_at: None };
    let token = TokenService::new(core.clone()).create(author(), input).await.unwrap();
    (id, token.output.secret.reveal().to_owned())
}

/// Starts a server with [`FLAGS`] flags of several kinds and a user with ten overrides.
async fn start_service(path: &str) -> Service {
    let store = Store::open(&format!("sqlite://{path}").parse().unwrap()).await.unwrap();
    store.migrate().await.unwrap();
    let runtime = Runtime::start(store, Arc::new(SystemClock::default())).await.unwrap();
    let core = &runtime.core;
    for number in 0..FLAGS {
        FlagService::new(core.clone()).create(author(), flag(number)).await.unwrap();
    }
    let (id, token) = create_user(core, "ann@example.com", json!("short")).await;
    let overrides = UserFlagOverrideService::new(core.clone(), runtime.evaluation.clone());
    for number in 0..10 {
        let input = NewOverride { override_value: json!("mine"), enabled: true, reason: None, expires_at: None };
        let name = format!("area.flag{number}");
        overrides.set_override(author(), id, &name, input, Precondition::None).await.unwrap();
    }
    // All requests use one credential, so the limits are disabled.
    let rate_limits = RateLimits { requests: 0, evaluations: 0, anonymous: 0 };
    let settings = Settings { metrics_with_api: true, workers: 1, rate_limits, ..Settings::default() };
    let app = App::new(&runtime, None, settings);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(&app, listener).unwrap());
    Service { runtime, address, token }
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

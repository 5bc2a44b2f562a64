//! Requests per second of `/api/flags/me` with 100 flags, beside an actix handler that returns ready bytes of the same
//! size, in turns within one run. Server and load share the machine, so the ratio is what counts.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

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
    Core, Precondition, SystemClock,
    credentials::{
        signing::SigningKey,
        tokens::{TokenInput, TokenService},
    },
    evaluation::Evaluation,
    feed,
    flags::{FlagInput, FlagService},
    overrides::{OverrideInput, UserFlagOverrideService},
    replica::Replica,
    users::{UserInput, UserService},
};
use flags_store::{Author, Store, api_tokens::Grant, users::Role};
use serde_json::json;

const FLAGS: usize = 100;
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let (address, token) = service(&folder.path().join("flags.db").display().to_string()).await;
    let request = format!("GET /api/flags/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    let bytes = Client::new(address).send(&request);
    let ready = ready_bytes(bytes);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(measure(address, &request).await);
        theirs.push(measure(ready, &request).await);
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!(
        "{FLAGS} flags ({bytes} bytes a body), {CONNECTIONS} connections, 1 server thread, {ROUNDS} rounds of {ROUND:?} in turns, medians:"
    );
    println!("  /api/flags/me   {ours:>9.0} requests/s   {:>6.1} us each", 1e6 / ours);
    println!("  ready bytes     {theirs:>9.0} requests/s   {:>6.1} us each", 1e6 / theirs);
    println!("  ratio           {:>9.2}", ours / theirs);
}

/// The service with flags of all kinds and a user with ten overrides.
async fn service(path: &str) -> (SocketAddr, String) {
    let store = Store::open(&format!("sqlite://{path}").parse().unwrap()).await.unwrap();
    store.migrate().await.unwrap();
    let core = Core::new(store.clone(), Arc::new(SystemClock::default()));
    let author = Author { actor: "system:bench".to_owned(), request_id: None };
    for number in 0..FLAGS {
        FlagService::new(core.clone()).create(author.clone(), flag(number)).await.unwrap();
    }
    let user = UserInput {
        email: "ann@example.com".to_owned(),
        display_name: None,
        role: Role::User,
        attributes: [("plan".to_owned(), json!("pro"))].into_iter().collect(),
        active: true,
        password: None,
    };
    let id = UserService::new(core.clone()).create(author.clone(), user).await.unwrap().output.record.id;
    let empty = Arc::new(Replica::new(feed::load(&store).await.unwrap()));
    let overrides = UserFlagOverrideService::new(core.clone(), Evaluation::new(core.clone(), empty));
    for number in 0..10 {
        let input = OverrideInput { override_value: json!("mine"), enabled: true, reason: None, expires_at: None };
        let name = format!("area.flag{number}");
        overrides.set_override(author.clone(), id, &name, input, Precondition::None).await.unwrap();
    }
    let input =
        TokenInput { name: "bench".to_owned(), grant: Grant::Role(Role::User), user_id: Some(id), expires_at: None };
    let token = TokenService::new(core.clone()).create(author, input).await.unwrap().output.secret.reveal().to_owned();
    let replica = Arc::new(Replica::new(feed::load(&store).await.unwrap()));
    // One credential asks for all that the server can give.
    let limits = RateLimits { requests: 0, evaluations: 0, anonymous: 0 };
    let settings = Settings { metrics_with_api: true, workers: 1, limits, ..Settings::default() };
    let tickets = SigningKey::of_event_streams(core.store()).await.unwrap();
    let app = App::new(&core, &replica, tickets, None, settings);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(&app, listener).unwrap());
    (address, token)
}

fn flag(number: usize) -> FlagInput {
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
    FlagInput {
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

/// A handler that returns so many bytes.
fn ready_bytes(count: usize) -> SocketAddr {
    let body = web::Bytes::from(vec![b'x'; count]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = HttpServer::new(move || {
        let body = body.clone();
        let answer = move || {
            let body = body.clone();
            async move { body }
        };
        actix_web::App::new().route("/api/flags/me", web::get().to(answer))
    });
    tokio::spawn(server.workers(1).disable_signals().listen(listener).unwrap().run());
    address
}

/// Requests per second over one round.
async fn measure(address: SocketAddr, request: &str) -> f64 {
    let request = request.to_owned();
    let begun = Moment::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let request = request.clone();
            thread::spawn(move || {
                let mut client = Client::new(address);
                let mut count = 0_u32;
                while begun.elapsed() < ROUND {
                    client.send(&request);
                    count += 1;
                }
                count
            })
        })
        .collect();
    let joined =
        tokio::task::spawn_blocking(move || clients.into_iter().map(|client| client.join().unwrap()).sum::<u32>());
    f64::from(joined.await.unwrap()) / begun.elapsed().as_secs_f64()
}

/// A connection that is kept alive.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends a request and returns the length of the answer's body.
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

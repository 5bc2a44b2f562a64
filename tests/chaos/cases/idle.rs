//! 10,000 idle streams, and 1,000 clients that stop reading their streams.

use std::time::{Duration, Instant};

use flags_tests::{app::override_path, database::DatabaseKind};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
};

use crate::{CaseOptions, environment::TestEnvironment, report::CaseReport};

/// Number of users with idle streams. One additional user has the streams whose clients stop reading.
const USERS: usize = 100;

/// Opens a stream without an HTTP library. With 11,000 HTTP clients, the case would measure the clients instead of the
/// server.
async fn open_stream(env: &TestEnvironment, user: usize, receive_buffer: Option<u32>) -> TcpStream {
    let address = env.servers[0].base_url.trim_start_matches("http://").parse().expect("address is valid");
    let socket = TcpSocket::new_v4().expect("socket can be created");
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes).expect("receive buffer size can be set");
    }
    let mut stream = socket.connect(address).await.expect("the server accepts connections");
    let token = &env.users[user].token;
    let request = format!("GET /api/flags/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("request can be sent");
    stream
}

pub(crate) async fn run(case: &str, kind: DatabaseKind, options: CaseOptions, report: &mut CaseReport) {
    let mut env = TestEnvironment::new(case, kind, USERS + 1, 20, options.seed).await;
    env.start_servers(1).await;
    let body = json!({"name": "large", "flag_type": "string", "variants": [{"id": "v", "value": ""}],
        "default": {"variant": "v"}, "off_variant": "v"});
    let admin = env.admin(0);
    admin.post("/api/admin/feature-flags", &body).await.expect(201);
    let (idle, stalled) = (options.scaled(10_000), options.scaled(1_000));
    let kib_without_streams = env.servers[0].resident_kib();
    let (events, mut received) = mpsc::unbounded_channel();
    let mut readers = Vec::new();
    for number in 0..idle {
        let mut stream = open_stream(&env, number % USERS, None).await;
        let events = events.clone();
        readers.push(tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                let text = String::from_utf8_lossy(&buffer[..read]);
                let name = if text.contains("event: snapshot") {
                    "snapshot"
                } else if text.contains("event: change") {
                    "change"
                } else {
                    continue;
                };
                let _ = events.send((name, Instant::now()));
            }
            let _ = events.send(("end", Instant::now()));
        }));
    }
    for _ in 0..idle {
        assert_eq!(received.recv().await.expect("readers are running").0, "snapshot");
    }
    let open_streams = async || {
        let metrics = admin.get("/metrics").await.text;
        let line = metrics.lines().find_map(|line| line.strip_prefix("flags_streams_open{kind=\"user\"} "));
        line.and_then(|count| count.parse::<usize>().ok()).unwrap_or(0)
    };
    let wait_for_open_streams = async |count: usize| {
        let is_reached = async || (open_streams().await == count).then_some(());
        flags_tests::eventually("the metric counts all open streams", is_reached).await;
        open_streams().await
    };
    report.expect_eq("idle streams", &idle, &wait_for_open_streams(idle).await);
    let kib_per_stream = (env.servers[0].resident_kib() - kib_without_streams) as f64 / idle as f64;
    report.info("resident KiB per stream", format!("{kib_per_stream:.1}"));
    report.expect_eq("at most 16 KiB per stream", &true, &(kib_per_stream <= 16.0));
    let mut stalled_clients = Vec::new();
    for _ in 0..stalled {
        stalled_clients.push(open_stream(&env, USERS, Some(4_096)).await);
    }
    let all = idle + stalled;
    report.expect_eq("streams including stalled clients", &all, &wait_for_open_streams(all).await);
    let kib_before_load = env.servers[0].resident_kib();
    // Large values for the user of the stalled clients fill the send buffers in the kernel.
    let path = override_path(&env.users[USERS].id.to_string(), "large");
    let mut millis = Vec::new();
    let deadline = Instant::now() + options.duration.max(Duration::from_secs(40));
    let mut rounds = 0;
    while Instant::now() < deadline {
        let body = json!({"override_value": format!("{rounds}{}", "x".repeat(50_000))});
        env.send_change(&admin, Method::PUT, &path, Some(body)).await.expect("change is acknowledged");
        let write = env.set_flag_default(&admin, "flag0").await.expect("change is acknowledged");
        for _ in 0..idle {
            let (name, received_at) = received.recv().await.expect("readers are running");
            assert_eq!(name, "change");
            millis.push(received_at.saturating_duration_since(write.acknowledged_at).as_secs_f64() * 1e3);
        }
        rounds += 1;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    report.print_percentiles("delay of a change for all idle streams", millis);
    let growth = env.servers[0].resident_kib().saturating_sub(kib_before_load) as f64 / stalled as f64;
    report.info("additional KiB per stalled client", format!("{growth:.1}"));
    let started_at = Instant::now();
    while open_streams().await > idle && started_at.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    report.expect_eq("streams after stalled clients were disconnected", &idle, &open_streams().await);
    report.info("stalled clients", stalled);
    readers.iter().for_each(tokio::task::JoinHandle::abort);
}

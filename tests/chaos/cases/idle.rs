//! 10,000 idle streams, and 1,000 readers that stop reading.

use std::time::{Duration, Instant};

use flags_tests::{app::override_path, database::Kind};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
};

use crate::{Scale, scene::Scene, verdict::Verdict};

/// Users whose streams are idle; the last one's streams are those that nobody reads.
const USERS: usize = 100;

/// Opens a stream without a client library: 11,000 of those would measure themselves.
async fn open(scene: &Scene, user: usize, receive_buffer: Option<u32>) -> TcpStream {
    let address = scene.servers[0].base_url.trim_start_matches("http://").parse().expect("an address");
    let socket = TcpSocket::new_v4().expect("a socket");
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes).expect("a size");
    }
    let mut stream = socket.connect(address).await.expect("the server answers");
    let token = &scene.users[user].token;
    let request = format!("GET /api/flags/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream
}

pub(crate) async fn run(case: &str, kind: Kind, scale: Scale, verdict: &mut Verdict) {
    let mut scene = Scene::new(case, kind, USERS + 1, 20, scale.seed).await;
    scene.serve_directly(1).await;
    let body = json!({"name": "large", "flag_type": "string", "variants": [{"id": "v", "value": ""}],
        "default": {"variant": "v"}, "off_variant": "v"});
    let admin = scene.admin(0);
    admin.post("/api/admin/feature-flags", &body).await.expect(201);
    let (healthy, stalled) = (scale.many(10_000), scale.many(1_000));
    let before = scene.servers[0].resident_kib();
    let (events, mut seen) = mpsc::unbounded_channel();
    let mut readers = Vec::new();
    for number in 0..healthy {
        let mut stream = open(&scene, number % USERS, None).await;
        let events = events.clone();
        readers.push(tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                let text = String::from_utf8_lossy(&buffer[..read]);
                let what = if text.contains("event: snapshot") {
                    "snapshot"
                } else if text.contains("event: change") {
                    "change"
                } else {
                    continue;
                };
                let _ = events.send((what, Instant::now()));
            }
            let _ = events.send(("end", Instant::now()));
        }));
    }
    for _ in 0..healthy {
        assert_eq!(seen.recv().await.expect("an event").0, "snapshot");
    }
    let open_now = async || {
        let metrics = admin.get("/metrics").await.text;
        let line = metrics.lines().find_map(|line| line.strip_prefix("flags_streams_open{kind=\"user\"} "));
        line.and_then(|count| count.parse::<usize>().ok()).unwrap_or(0)
    };
    let are_open = async |count: usize| {
        let reached = async || (open_now().await == count).then_some(());
        flags_tests::eventually("the gauge shows all streams", reached).await;
        open_now().await
    };
    verdict.must_be("idle streams", &healthy, &are_open(healthy).await);
    let per_stream = (scene.servers[0].resident_kib() - before) as f64 / healthy as f64;
    verdict.tell("resident KiB a stream", format!("{per_stream:.1}"));
    verdict.must_be("at most 16 KiB each", &true, &(per_stream <= 16.0));
    let mut silent = Vec::new();
    for _ in 0..stalled {
        silent.push(open(&scene, USERS, Some(4_096)).await);
    }
    let all = healthy + stalled;
    verdict.must_be("with readers that will stop", &all, &are_open(all).await);
    let full = scene.servers[0].resident_kib();
    // What is sent to the silent ones fills what the kernel holds for them.
    let path = override_path(&scene.users[USERS].id.to_string(), "large");
    let mut millis = Vec::new();
    let until = Instant::now() + scale.time.max(Duration::from_secs(40));
    let mut rounds = 0;
    while Instant::now() < until {
        let body = json!({"override_value": format!("{rounds}{}", "x".repeat(50_000))});
        scene.change(&admin, Method::PUT, &path, Some(body)).await.expect("a change");
        let write = scene.set_default(&admin, "flag0").await.expect("a change");
        for _ in 0..healthy {
            let (what, at) = seen.recv().await.expect("an event");
            assert_eq!(what, "change");
            millis.push(at.saturating_duration_since(write.acked_at).as_secs_f64() * 1e3);
        }
        rounds += 1;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    verdict.spread("to each healthy stream, a change for everybody", millis);
    let grown = scene.servers[0].resident_kib().saturating_sub(full) as f64 / stalled as f64;
    verdict.tell("more KiB for each silent reader", format!("{grown:.1}"));
    let begun = Instant::now();
    while open_now().await > healthy && begun.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    verdict.must_be("streams left when the silent were evicted", &healthy, &open_now().await);
    verdict.tell("silent readers that were evicted", stalled);
    readers.iter().for_each(tokio::task::JoinHandle::abort);
}

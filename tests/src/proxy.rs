//! A small TCP proxy that does to connections what networks do.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{Rng, seq::IteratorRandom as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};

/// Where connections lead.
#[derive(Clone, Debug)]
pub enum Target {
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}

/// What happens to bytes on their way, on every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// They vanish, and the connection stays open.
    BlackHole,
    /// So many bytes a second, and no more.
    Throttle(usize),
    /// They come so much later.
    Delay(Duration),
    /// PostgreSQL's notifications vanish, everything else passes.
    SwallowNotifications,
}

/// What happens to one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Cut,
    /// What comes from the client is taken for ended, the other way stays open.
    HalfClosed,
}

struct Connection {
    id: u64,
    fate: watch::Sender<Fate>,
    /// Whether PostgreSQL's LISTEN was seen on it.
    listens: AtomicBool,
}

struct Shared {
    target: Target,
    fault: watch::Sender<Fault>,
    connections: Mutex<Vec<Arc<Connection>>>,
    next_id: AtomicU64,
}

/// A listening proxy. It ends with its runtime.
#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Begins to pass connections on.
    pub async fn start(target: Target) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let fault = watch::Sender::new(Fault::Pass);
        let shared = Arc::new(Shared { target, fault, connections: Mutex::default(), next_id: AtomicU64::new(0) });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared }
    }

    /// Does this to all bytes from now on.
    pub fn set(&self, fault: Fault) {
        self.shared.fault.send_replace(fault);
    }

    /// How many open connections listen for PostgreSQL's notifications.
    pub fn listeners(&self) -> usize {
        let connections = self.shared.connections.lock().expect("no panic");
        let listens = |connection: &&Arc<Connection>| {
            connection.listens.load(Ordering::Relaxed) && *connection.fate.borrow() == Fate::Open
        };
        connections.iter().filter(listens).count()
    }

    /// Ends up to `count` connections of random choice, both ways at once; returns how many.
    pub fn cut_some(&self, count: usize, rng: &mut impl Rng) -> usize {
        let connections = self.shared.connections.lock().expect("no panic");
        let chosen = connections.iter().sample(rng, count);
        chosen.iter().for_each(|connection| _ = connection.fate.send_replace(Fate::Cut));
        chosen.len()
    }

    /// Ends all connections.
    pub fn cut_all(&self) -> usize {
        self.each(Fate::Cut, |_| true)
    }

    /// Ends the connections that listen for PostgreSQL's notifications; returns how many.
    pub fn cut_listeners(&self) -> usize {
        self.each(Fate::Cut, |connection| connection.listens.load(Ordering::Relaxed))
    }

    /// Ends one way of every connection.
    pub fn half_close_all(&self) -> usize {
        self.each(Fate::HalfClosed, |_| true)
    }

    fn each(&self, fate: Fate, which: impl Fn(&Connection) -> bool) -> usize {
        let connections = self.shared.connections.lock().expect("no panic");
        let chosen: Vec<_> = connections.iter().filter(|connection| which(connection)).collect();
        chosen.iter().for_each(|connection| _ = connection.fate.send_replace(fate));
        chosen.len()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        tokio::spawn(carry(client, Arc::clone(&shared)));
    }
}

async fn carry(client: TcpStream, shared: Arc<Shared>) {
    let _ = client.set_nodelay(true);
    let connection = Arc::new(Connection {
        id: shared.next_id.fetch_add(1, Ordering::Relaxed),
        fate: watch::Sender::new(Fate::Open),
        listens: AtomicBool::new(false),
    });
    shared.connections.lock().expect("no panic").push(Arc::clone(&connection));
    match &shared.target {
        Target::Tcp(address) => {
            if let Ok(server) = TcpStream::connect(address).await {
                let _ = server.set_nodelay(true);
                pump_both(client.into_split(), server.into_split(), &shared, &connection).await;
            }
        }
        Target::Unix(path) => {
            if let Ok(server) = UnixStream::connect(path).await {
                pump_both(client.into_split(), server.into_split(), &shared, &connection).await;
            }
        }
    }
    shared.connections.lock().expect("no panic").retain(|open| open.id != connection.id);
}

async fn pump_both(
    client: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    server: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    shared: &Shared,
    connection: &Connection,
) {
    let up = pump(client.0, server.1, shared, connection, true);
    let down = pump(server.0, client.1, shared, connection, false);
    let mut fate = connection.fate.subscribe();
    tokio::select! {
        _ = async { tokio::join!(up, down) } => {}
        _ = fate.wait_for(|fate| *fate == Fate::Cut) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    connection: &Connection,
    upwards: bool,
) {
    let mut frames = Frames::default();
    let mut buffer = vec![0; 16 * 1024];
    let mut fate = connection.fate.subscribe();
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            _ = fate.wait_for(|fate| *fate == Fate::HalfClosed), if upwards => 0,
        };
        if read == 0 {
            let _ = to.shutdown().await;
            return;
        }
        let mut bytes = buffer[..read].to_vec();
        if upwards && bytes.windows(7).any(|part| part == b"LISTEN ") {
            connection.listens.store(true, Ordering::Relaxed);
        }
        let fault = *shared.fault.borrow();
        if !upwards && connection.listens.load(Ordering::Relaxed) {
            bytes = frames.pass(&bytes, fault == Fault::SwallowNotifications);
        }
        match fault {
            Fault::BlackHole => continue,
            Fault::Delay(delay) => tokio::time::sleep(delay).await,
            Fault::Throttle(rate) => tokio::time::sleep(Duration::from_secs_f64(read as f64 / rate as f64)).await,
            Fault::Pass | Fault::SwallowNotifications => {}
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// PostgreSQL's messages to a client: a byte of kind, four of length, and the rest. Begins between two messages.
#[derive(Default)]
struct Frames(Vec<u8>);

impl Frames {
    /// Takes bytes in and gives whole messages out, without notifications if they are to vanish.
    fn pass(&mut self, bytes: &[u8], swallow: bool) -> Vec<u8> {
        self.0.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some(length) = self.0.get(1..5).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes) {
            let end = length as usize + 1;
            if self.0.len() < end {
                break;
            }
            let message: Vec<u8> = self.0.drain(..end).collect();
            if !(swallow && message[0] == b'A') {
                out.extend(message);
            }
        }
        out
    }
}

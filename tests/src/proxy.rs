//! A TCP proxy that simulates network faults.

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

/// Address to which the proxy forwards connections.
#[derive(Clone, Debug)]
pub enum Target {
    Tcp(SocketAddr),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

/// Fault that affects the bytes of all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Forwards bytes unchanged.
    Pass,
    /// Discards all bytes and keeps the connections open.
    BlackHole,
    /// Limits each direction of a connection to this number of bytes per second.
    Throttle(usize),
    /// Delays each chunk of up to 16 KiB. The next chunk is read after the delay.
    Delay(Duration),
    /// Discards the notifications of PostgreSQL and forwards all other messages.
    DropNotifications,
}

/// State of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionState {
    Open,
    /// The proxy closes both directions.
    Closed,
    /// The proxy closes the direction from client to server. The other direction stays open.
    HalfClosed,
}

struct Connection {
    id: u64,
    state: watch::Sender<ConnectionState>,
    /// Whether the client has sent a `LISTEN` command of PostgreSQL.
    listens: AtomicBool,
}

struct ProxyState {
    target: Target,
    fault: watch::Sender<Fault>,
    connections: Mutex<Vec<Arc<Connection>>>,
    next_id: AtomicU64,
}

/// A listening proxy. It runs until its Tokio runtime shuts down.
#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<ProxyState>,
}

impl Proxy {
    /// Starts a proxy on a free local port.
    pub async fn start(target: Target) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("the listener has an address");
        let fault = watch::Sender::new(Fault::Pass);
        let shared = Arc::new(ProxyState { target, fault, connections: Mutex::default(), next_id: AtomicU64::new(0) });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared }
    }

    /// Sets the fault for existing and new connections.
    pub fn set_fault(&self, fault: Fault) {
        self.shared.fault.send_replace(fault);
    }

    /// Returns the number of open connections that have sent `LISTEN`.
    pub fn listening_connection_count(&self) -> usize {
        let connections = self.shared.connections.lock().expect("lock is not poisoned");
        let listens = |connection: &&Arc<Connection>| {
            connection.listens.load(Ordering::Relaxed) && *connection.state.borrow() == ConnectionState::Open
        };
        connections.iter().filter(listens).count()
    }

    /// Closes up to `count` randomly chosen connections. Returns the number of closed connections.
    pub fn close_some(&self, count: usize, rng: &mut impl Rng) -> usize {
        let connections = self.shared.connections.lock().expect("lock is not poisoned");
        let chosen = connections.iter().sample(rng, count);
        chosen.iter().for_each(|connection| _ = connection.state.send_replace(ConnectionState::Closed));
        chosen.len()
    }

    /// Closes all connections. Returns their number.
    pub fn close_all(&self) -> usize {
        self.set_state_of_matching_connections(ConnectionState::Closed, |_| true)
    }

    /// Closes the connections that have sent `LISTEN`. Returns their number.
    pub fn close_listening(&self) -> usize {
        self.set_state_of_matching_connections(ConnectionState::Closed, |connection| {
            connection.listens.load(Ordering::Relaxed)
        })
    }

    /// Closes the direction from client to server of all connections. Returns their number.
    pub fn half_close_all(&self) -> usize {
        self.set_state_of_matching_connections(ConnectionState::HalfClosed, |_| true)
    }

    fn set_state_of_matching_connections(
        &self,
        state: ConnectionState,
        predicate: impl Fn(&Connection) -> bool,
    ) -> usize {
        let connections = self.shared.connections.lock().expect("lock is not poisoned");
        let chosen: Vec<_> = connections.iter().filter(|connection| predicate(connection)).collect();
        chosen.iter().for_each(|connection| _ = connection.state.send_replace(state));
        chosen.len()
    }
}

async fn accept(listener: TcpListener, shared: Arc<ProxyState>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        tokio::spawn(forward(client, Arc::clone(&shared)));
    }
}

async fn forward(client: TcpStream, shared: Arc<ProxyState>) {
    let _ = client.set_nodelay(true);
    let connection = Arc::new(Connection {
        id: shared.next_id.fetch_add(1, Ordering::Relaxed),
        state: watch::Sender::new(ConnectionState::Open),
        listens: AtomicBool::new(false),
    });
    shared.connections.lock().expect("lock is not poisoned").push(Arc::clone(&connection));
    match &shared.target {
        Target::Tcp(address) => {
            if let Ok(server) = TcpStream::connect(address).await {
                let _ = server.set_nodelay(true);
                copy_both_directions(client.into_split(), server.into_split(), &shared, &connection).await;
            }
        }
        Target::Unix(path) => {
            if let Ok(server) = UnixStream::connect(path).await {
                copy_both_directions(client.into_split(), server.into_split(), &shared, &connection).await;
            }
        }
    }
    shared.connections.lock().expect("lock is not poisoned").retain(|open| open.id != connection.id);
}

async fn copy_both_directions(
    client: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    server: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    shared: &ProxyState,
    connection: &Connection,
) {
    let to_server = copy(client.0, server.1, shared, connection, true);
    let to_client = copy(server.0, client.1, shared, connection, false);
    let mut state = connection.state.subscribe();
    tokio::select! {
        _ = async { tokio::join!(to_server, to_client) } => {}
        _ = state.wait_for(|state| *state == ConnectionState::Closed) => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &ProxyState,
    connection: &Connection,
    is_to_server: bool,
) {
    let mut messages = MessageSplitter::default();
    let mut buffer = vec![0; 16 * 1024];
    let mut state = connection.state.subscribe();
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            _ = state.wait_for(|state| *state == ConnectionState::HalfClosed), if is_to_server => 0,
        };
        if read == 0 {
            let _ = to.shutdown().await;
            return;
        }
        let mut bytes = buffer[..read].to_vec();
        if is_to_server && bytes.windows(7).any(|window| window == b"LISTEN ") {
            connection.listens.store(true, Ordering::Relaxed);
        }
        let fault = *shared.fault.borrow();
        if !is_to_server && connection.listens.load(Ordering::Relaxed) {
            bytes = messages.push(&bytes, fault == Fault::DropNotifications);
        }
        match fault {
            Fault::BlackHole => continue,
            Fault::Delay(delay) => tokio::time::sleep(delay).await,
            Fault::Throttle(rate) => tokio::time::sleep(Duration::from_secs_f64(read as f64 / rate as f64)).await,
            Fault::Pass | Fault::DropNotifications => {}
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Splits the bytes that PostgreSQL sends into messages: one byte for the type, four bytes for the length (without the
/// type), and the payload. The first byte must be the start of a message.
#[derive(Default)]
struct MessageSplitter(Vec<u8>);

impl MessageSplitter {
    /// Adds received bytes and returns the complete messages, without notifications if `drop_notifications` is set.
    fn push(&mut self, bytes: &[u8], drop_notifications: bool) -> Vec<u8> {
        self.0.extend_from_slice(bytes);
        let mut complete = Vec::new();
        while let Some(length) = self.0.get(1..5).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes) {
            let end = length as usize + 1;
            if self.0.len() < end {
                break;
            }
            let message: Vec<u8> = self.0.drain(..end).collect();
            // `A` is the type of NotificationResponse.
            if !(drop_notifications && message[0] == b'A') {
                complete.extend(message);
            }
        }
        complete
    }
}

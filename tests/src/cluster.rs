//! PostgreSQL clusters of the tests' own: made by `initdb` in a temporary folder, reachable by a socket in it and by
//! nothing else, and ended by their own process id.
//!
//! A shell stands between: it waits for its standard input to end, which it does when this process does, however that
//! ends. So no cluster outlives the tests.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

/// A running cluster.
pub struct Cluster {
    folder: TempDir,
    shell: Child,
    /// The shell ends the cluster when this is dropped.
    _lifeline: Option<ChildStdin>,
}

/// The cluster that most tests share, each with a database of its own. It ends with this process.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        Cluster::start(&["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"])
    })
}

impl Cluster {
    /// Makes and starts a cluster with these further options.
    pub fn start(options: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("flags-pg-").tempdir().expect("a temporary folder");
        hand_over(folder.path());
        let data = folder.path().join("data");
        let mut initdb = unprivileged("initdb");
        initdb
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data);
        let made = initdb.output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut cluster = Self { folder, shell: Command::new("true").spawn().expect("true"), _lifeline: None };
        cluster.launch(options);
        cluster
    }

    /// Starts the server on the data that is there, and waits until it answers.
    pub fn launch(&mut self, options: &[&str]) {
        let _ = self.shell.wait();
        let data = self.folder.path().join("data");
        let server = format!(
            "'{}' -D '{}' -k '{}' -c listen_addresses= -c autovacuum=off -c max_connections=400 {} >'{}' 2>&1",
            bin("postgres").display(),
            data.display(),
            self.folder.path().display(),
            options.join(" "),
            self.folder.path().join("log").display(),
        );
        let script = format!("{server} & server=$!; read _; kill -INT $server 2>/dev/null; wait $server");
        let mut shell = as_unprivileged("sh");
        self.shell = shell.args(["-c", &script]).stdin(Stdio::piped()).spawn().expect("a shell");
        self._lifeline = self.shell.stdin.take();
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        for _ in 0..600 {
            let mut ready = Command::new(bin("pg_isready"));
            ready.args(["-q", "-t", "1", "-U", "postgres", "-h"]).arg(self.folder.path());
            if ready.status().expect("pg_isready runs").success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let mut log = String::new();
        let _ = fs::File::open(self.folder.path().join("log")).and_then(|mut file| file.read_to_string(&mut log));
        panic!("PostgreSQL does not start: {log}");
    }

    /// The URL of a database in this cluster.
    pub fn url(&self, database: &str) -> String {
        let socket = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{socket}/{database}")
    }

    /// The process id of the server that all its other processes descend from.
    pub fn pid(&self) -> i32 {
        let file = fs::read_to_string(self.folder.path().join("data/postmaster.pid")).expect("the server runs");
        file.lines().next().and_then(|line| line.parse().ok()).expect("a process id")
    }

    /// The path of the server's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    /// Ends all processes of the server at once, in whatever they are doing, and waits until they are gone.
    pub fn kill(&mut self) {
        for pid in self.pids() {
            // One that has ended meanwhile is as good as killed.
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        // The shell waits for this end, whatever became of the server.
        self._lifeline = None;
        let _ = self.shell.wait();
    }

    /// All processes of the server.
    pub fn pids(&self) -> Vec<i32> {
        let parent = self.pid();
        let children =
            Command::new("ps").args(["-o", "pid=", "--ppid", &parent.to_string()]).output().expect("ps runs");
        let children = String::from_utf8_lossy(&children.stdout).into_owned();
        std::iter::once(parent).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }

    /// Stops the server, ending the connections it has, and waits until it is gone.
    pub fn shut_down(&mut self) {
        self._lifeline = None;
        let _ = self.shell.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// A program of PostgreSQL's newest installed version.
pub fn bin(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let newest = versions.filter(|path| path.join("bin").join(name).exists()).max();
    newest.map_or_else(|| PathBuf::from(name), |version| version.join("bin").join(name))
}

fn unprivileged(name: &str) -> Command {
    as_unprivileged(bin(name).to_str().expect("UTF-8"))
}

/// PostgreSQL refuses to run as root.
fn as_unprivileged(program: &str) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--", program]).current_dir("/");
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    id.stdout.trim_ascii() == b"0"
}

/// Gives the folder to whom the server runs as.
fn hand_over(folder: &Path) {
    if is_root() {
        let done = Command::new("chown").arg("postgres").arg(folder).status().expect("chown runs");
        assert!(done.success());
    }
}

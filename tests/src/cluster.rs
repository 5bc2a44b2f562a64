//! Private PostgreSQL clusters. `initdb` creates each cluster in a temporary folder. It accepts connections only
//! through a Unix socket in that folder.
//!
//! A shell process supervises each cluster: it stops the server when its standard input is closed. This happens
//! automatically when the test process exits or crashes, so no cluster outlives the tests.

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
    supervisor: Child,
    /// Standard input of the supervisor. Dropping it makes the supervisor stop the server.
    _supervisor_stdin: Option<ChildStdin>,
}

/// Returns the cluster that most tests share, each with a database of its own. It runs until the test process exits.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        Cluster::start(&["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"])
    })
}

impl Cluster {
    /// Creates a cluster and starts its server with additional command-line options.
    pub fn start(options: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("flags-pg-").tempdir().expect("temporary folder can be created");
        change_owner_to_postgres(folder.path());
        let data = folder.path().join("data");
        let mut initdb = postgres_command("initdb");
        initdb
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data);
        let output = initdb.output().expect("initdb can be started");
        assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        let placeholder = Command::new("true").spawn().expect("`true` can be started");
        let mut cluster = Self { folder, supervisor: placeholder, _supervisor_stdin: None };
        cluster.launch(options);
        cluster
    }

    /// Starts the server on the existing data and waits until it accepts connections.
    pub fn launch(&mut self, options: &[&str]) {
        let _ = self.supervisor.wait();
        let data = self.folder.path().join("data");
        let server = format!(
            "'{}' -D '{}' -k '{}' -c listen_addresses= -c autovacuum=off -c max_connections=400 {} >'{}' 2>&1",
            program_path("postgres").display(),
            data.display(),
            self.folder.path().display(),
            options.join(" "),
            self.folder.path().join("log").display(),
        );
        let script = format!("{server} & server=$!; read _; kill -INT $server 2>/dev/null; wait $server");
        let mut shell = unprivileged_command("sh");
        self.supervisor = shell.args(["-c", &script]).stdin(Stdio::piped()).spawn().expect("a shell can be started");
        self._supervisor_stdin = self.supervisor.stdin.take();
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        for _ in 0..600 {
            let mut pg_isready = Command::new(program_path("pg_isready"));
            pg_isready.args(["-q", "-t", "1", "-U", "postgres", "-h"]).arg(self.folder.path());
            if pg_isready.status().expect("pg_isready can be started").success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let mut log = String::new();
        let _ = fs::File::open(self.folder.path().join("log")).and_then(|mut file| file.read_to_string(&mut log));
        panic!("PostgreSQL does not start: {log}");
    }

    /// Returns the URL of a database in this cluster.
    pub fn url(&self, database: &str) -> String {
        let socket = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{socket}/{database}")
    }

    /// Returns the process id of the postmaster, the parent of all other server processes.
    pub fn pid(&self) -> i32 {
        let file = fs::read_to_string(self.folder.path().join("data/postmaster.pid")).expect("the server is running");
        file.lines().next().and_then(|line| line.parse().ok()).expect("postmaster.pid starts with a process id")
    }

    /// Returns the path of the Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    /// Sends SIGKILL to all server processes and waits until they have exited.
    pub fn kill(&mut self) {
        for pid in self.pids() {
            // `kill` fails if the process has already exited, which is not an error here.
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        // The supervisor keeps waiting for its standard input to be closed, even after the server was killed.
        self._supervisor_stdin = None;
        let _ = self.supervisor.wait();
    }

    /// Returns the process ids of all server processes; the postmaster comes first.
    pub fn pids(&self) -> Vec<i32> {
        let parent = self.pid();
        let children =
            Command::new("ps").args(["-o", "pid=", "--ppid", &parent.to_string()]).output().expect("ps can be started");
        let children = String::from_utf8_lossy(&children.stdout).into_owned();
        std::iter::once(parent).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }

    /// Stops the server with SIGINT, which closes its connections, and waits until it has exited.
    pub fn shut_down(&mut self) {
        self._supervisor_stdin = None;
        let _ = self.supervisor.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Returns the path of a program of the newest installed PostgreSQL version, or `name` if none is installed in
/// `/usr/lib/postgresql`.
pub fn program_path(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let newest = versions.filter(|path| path.join("bin").join(name).exists()).max();
    newest.map_or_else(|| PathBuf::from(name), |version| version.join("bin").join(name))
}

fn postgres_command(name: &str) -> Command {
    unprivileged_command(program_path(name).to_str().expect("path is valid UTF-8"))
}

/// Returns a command that runs as the user `postgres` if the current user is root. PostgreSQL refuses to run as root.
fn unprivileged_command(program: &str) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--", program]).current_dir("/");
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id can be started");
    id.stdout.trim_ascii() == b"0"
}

/// Changes the owner of the folder to the user that [`unprivileged_command`] runs programs as.
fn change_owner_to_postgres(folder: &Path) {
    if is_root() {
        let status = Command::new("chown").arg("postgres").arg(folder).status().expect("chown can be started");
        assert!(status.success(), "chown failed");
    }
}

//! The binaries of this workspace as processes.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use crate::caller::Caller;

/// Returns the path of a binary of this workspace. The binaries must be built before the tests run: Cargo does not
/// build the binaries of other packages for a test.
pub fn binary_path(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("path of the test program is known");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built; run `cargo build --bins` first", path.display());
    path
}

/// Runs a binary and waits until it exits.
pub fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(binary_path(name)).args(arguments).output().expect("binary can be started")
}

/// Runs a binary, which must succeed. Returns its standard output without trailing white space.
pub fn stdout_of(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("standard output is valid UTF-8").trim_end().to_owned()
}

/// Like [`stdout_of`], with `input` on the standard input.
pub fn stdout_with_input(name: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(binary_path(name));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("binary can be started");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    stdin.write_all(input.as_bytes()).expect("the process reads its standard input");
    drop(stdin);
    let output = child.wait_with_output().expect("the process can be waited for");
    assert!(output.status.success(), "{name} {arguments:?} failed");
    String::from_utf8(output.stdout).expect("standard output is valid UTF-8").trim_end().to_owned()
}

/// Asserts that a run exits with code 1 and writes exactly one line, which contains `message`, to standard error. Log
/// lines of level INFO do not count.
#[track_caller]
pub fn assert_fails_with(name: &str, arguments: &[&str], message: &str) {
    let output = run(name, arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let lines: Vec<_> = text.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert!(lines.len() == 1 && lines[0].contains(message), "expected one line with {message:?}, got {text}");
}

/// A running server or worker. Dropping it stops the process with SIGTERM.
pub struct RunningProcess {
    child: Child,
    pub base_url: String,
}

/// Log filter that requests all messages of all libraries. The directives are specific because a specific directive
/// takes precedence over a general one.
const VERBOSE_LOG_FILTER: &str = "trace,tokio_postgres::query=trace,tokio_postgres=trace,postgres=trace,diesel=trace,\
    actix_web::middleware=trace,actix_http::h1=trace,hyper::proto=trace";

impl RunningProcess {
    /// Starts a binary on a free port and waits until it prints the address on which it listens.
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        Self::start_at(name, arguments, "127.0.0.1:0")
    }

    /// Like [`Self::start`], with a fixed address.
    pub fn start_at(name: &str, arguments: &[&str], bind: &str) -> Self {
        Self::spawn(Command::new(binary_path(name)).args(arguments).args(["--bind", bind]).stderr(Stdio::null()))
    }

    /// Starts a server with additional arguments that writes log messages of all levels to a file.
    pub fn server_with_verbose_log(url: &str, log_format: &str, log_file: &Path, arguments: &[&str]) -> Self {
        let log = std::fs::File::create(log_file).expect("log file can be created");
        let default_arguments = ["--database-url", url, "--log-format", log_format, "--bind", "127.0.0.1:0"];
        let mut command = Command::new(binary_path("server"));
        command.args(default_arguments).args(arguments);
        Self::spawn(command.env("FLAGS_LOG", VERBOSE_LOG_FILTER).stderr(log))
    }

    fn spawn(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.stdout(Stdio::piped()).spawn().expect("binary can be started");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("standard output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("standard output can be read");
        // The server may print more text after the URL.
        let base_url = line.strip_prefix("listening on ").and_then(|rest| rest.split_whitespace().next());
        let base_url = base_url.unwrap_or_else(|| panic!("{name} printed {line:?} instead of its address")).to_owned();
        Self { child, base_url }
    }

    /// Starts a server from another executable, such as one of a newer version.
    pub fn server_at(binary: &Path, url: &str) -> Self {
        let arguments = ["--database-url", url, "--bind", "127.0.0.1:0"];
        Self::spawn(Command::new(binary).args(arguments).stderr(Stdio::null()))
    }

    /// Starts a server on this database.
    pub fn server(url: &str) -> Self {
        Self::start("server", &["--database-url", url])
    }

    pub fn caller(&self, token: &str) -> Caller {
        Caller::new(&self.base_url, Some(token))
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process id fits into i32")
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process is running");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS is present");
        line.trim().trim_end_matches(" kB").parse().expect("VmRSS is a number")
    }

    /// Sends SIGTERM and waits until the process exits.
    pub fn stop(mut self) -> ExitStatus {
        send_signal("TERM", self.pid());
        self.child.wait().expect("the process can be waited for")
    }

    /// Sends SIGKILL and waits until the process exits.
    pub fn kill(mut self) {
        send_signal("KILL", self.pid());
        let _ = self.child.wait();
    }
}

impl Drop for RunningProcess {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SIGTERM instead of SIGKILL, because a process writes its coverage data only when it exits normally.
            send_signal("TERM", self.pid());
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal to a process, by the signal's name without `SIG`.
pub fn send_signal(name: &str, pid: i32) {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(status.expect("kill can be started").success(), "cannot send {name} to {pid}");
}

/// Creates a user with role `user` and an API token of that user through the command line. Returns the user id and the
/// token.
pub fn create_user_with_token(url: &str, email: &str) -> (String, String) {
    let id = stdout_of("server", &["user", "create", "--database-url", url, "--email", email]);
    (id, create_user_token(url, email))
}

/// Creates an API token of an existing user through the command line.
pub fn create_user_token(url: &str, email: &str) -> String {
    let arguments = ["token", "create", "--database-url", url, "--name", "n", "--role", "user", "--user", email];
    stdout_of("server", &arguments)
}

/// Creates an API token with role `admin` through the command line.
pub fn create_admin_token(url: &str) -> String {
    stdout_of("server", &["token", "create", "--database-url", url, "--name", "test", "--role", "admin"])
}

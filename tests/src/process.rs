//! The real binaries, started as processes and ended by signals.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use crate::caller::Caller;

/// A binary of this workspace. The test command builds them before the tests, so none is stale.
pub fn binary(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("this program has a path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built; run `cargo build --bins` first", path.display());
    path
}

/// Runs a binary to its end.
pub fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(binary(name)).args(arguments).output().expect("the binary runs")
}

/// What a run that must succeed printed, without the last line feed.
pub fn output_of(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
}

/// The same, of a run that reads this from its standard input.
pub fn output_with_input(name: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(binary(name));
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("a standard input").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{name} {arguments:?} failed");
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
}

/// Asserts that a run fails with exit code 1 and one line that holds `part`.
#[track_caller]
pub fn fails_with(name: &str, arguments: &[&str], part: &str) {
    let output = run(name, arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let lines: Vec<_> = text.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert!(lines.len() == 1 && lines[0].contains(part), "expected one line with {part:?}, got {text}");
}

/// A process that listens on a port of its own.
pub struct Running {
    child: Child,
    pub base: String,
}

/// The more specific a directive, the more it counts.
const TALKATIVE: &str = "trace,tokio_postgres::query=trace,tokio_postgres=trace,postgres=trace,diesel=trace,\
    actix_web::middleware=trace,actix_http::h1=trace,hyper::proto=trace";

impl Running {
    /// Starts a binary that says where it listens.
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        Self::start_at(name, arguments, "127.0.0.1:0")
    }

    /// The same, at an address of choice.
    pub fn start_at(name: &str, arguments: &[&str], bind: &str) -> Self {
        Self::spawn(Command::new(binary(name)).args(arguments).args(["--bind", bind]).stderr(Stdio::null()))
    }

    /// A server on this database, with more arguments, that logs all that it can into this file, libraries in detail if it
    /// lets them.
    pub fn talkative_server(url: &str, format: &str, log: &Path, more: &[&str]) -> Self {
        let log = std::fs::File::create(log).expect("a file");
        let arguments = ["--database-url", url, "--log-format", format, "--bind", "127.0.0.1:0"];
        let mut command = Command::new(binary("server"));
        Self::spawn(command.args(arguments).args(more).env("FLAGS_LOG", TALKATIVE).stderr(log))
    }

    fn spawn(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("its standard output");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let base =
            line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{name} said {line:?}")).to_owned();
        Self { child, base }
    }

    /// A server on this database.
    pub fn server(url: &str) -> Self {
        Self::start("server", &["--database-url", url])
    }

    pub fn caller(&self, token: &str) -> Caller {
        Caller::new(&self.base, Some(token))
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// Memory that is resident, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(mut self) -> ExitStatus {
        signal("TERM", self.pid());
        self.child.wait().expect("it ends")
    }

    /// Ends it at once, in whatever it is doing.
    pub fn kill(mut self) {
        signal("KILL", self.pid());
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // By SIGTERM, so that a measured process still writes its coverage.
            signal("TERM", self.pid());
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal to one process.
pub fn signal(name: &str, pid: i32) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().expect("kill runs");
    assert!(sent.success(), "cannot send {name} to {pid}");
}

/// Makes a user of this e-mail on the command line, and a token that acts as them; returns id and token.
pub fn user_with_token(url: &str, email: &str) -> (String, String) {
    let id = output_of("server", &["user", "create", "--database-url", url, "--email", email]);
    (id, user_token(url, email))
}

/// Makes a token that acts as the user of this e-mail on the command line.
pub fn user_token(url: &str, email: &str) -> String {
    let words = ["token", "create", "--database-url", url, "--name", "n", "--role", "user", "--user", email];
    output_of("server", &words)
}

/// Makes an admin's token on the command line.
pub fn admin_token(url: &str) -> String {
    output_of("server", &["token", "create", "--database-url", url, "--name", "test", "--role", "admin"])
}

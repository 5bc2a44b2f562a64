//! Fault injection: runs the binaries on private databases, injects faults, and checks the guarantees.
//!
//! `just chaos` runs all cases; `just chaos writers --seed 7` runs one. Each case prints one line per guarantee and
//! writes all requests, responses and events to `target/chaos`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "measurements need no exact values")]

mod cases;
mod environment;
mod journal;
mod report;
mod subscriber;

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use flags_tests::database::DatabaseKind;

use crate::report::CaseReport;

#[derive(Parser)]
struct Args {
    /// Cases to run [default: all]
    cases: Vec<String>,
    /// Seed of all random choices. Thread scheduling and network timing still vary between runs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Duration of the fault phase of each case, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Number of overrides in the case `scale`
    #[arg(long, default_value_t = 1_000_000)]
    overrides: usize,
    /// Run only the cases for CI, with a tenth of the load and a fault phase of at most 5 seconds
    #[arg(long)]
    selection: bool,
}

/// Load and duration of a case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CaseOptions {
    pub(crate) seed: u64,
    pub(crate) duration: Duration,
    /// Number of overrides in the case `scale`.
    pub(crate) overrides: usize,
    /// Whether the case runs with a tenth of the load.
    pub(crate) short: bool,
}

impl CaseOptions {
    /// Returns `count`, or a tenth of it (rounded up) in a short run.
    pub(crate) const fn scaled(self, count: usize) -> usize {
        if self.short { count.div_ceil(10) } else { count }
    }
}

macro_rules! cases {
    ($($name:ident on $($kind:ident)|+ $(, $selected:ident)?;)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        /// Runs the cases that `is_requested` accepts. Returns name and success of each.
        async fn run(options: CaseOptions, is_requested: impl Fn(&str) -> bool) -> Vec<(String, bool)> {
            let mut outcomes = Vec::new();
            $(
                let is_selected = !options.short || [$(stringify!($selected))?].contains(&"selected");
                if is_requested(stringify!($name)) && is_selected {
                    $(
                        let name = format!("{}-{}", stringify!($name), stringify!($kind).to_lowercase());
                        let mut report = CaseReport::new(&name);
                        cases::$name::run(&name, DatabaseKind::$kind, options, &mut report).await;
                        outcomes.push((name, report.has_passed()));
                    )+
                }
            )*
            outcomes
        }
    };
}

cases! {
    writers on Postgres | Sqlite, selected;
    listener on Postgres, selected;
    cuts on Postgres, selected;
    cursors on Postgres | Sqlite;
    crash on Postgres, selected;
    workers on Postgres | Sqlite, selected;
    no_worker on Postgres | Sqlite, selected;
    stopped on Postgres;
    paused on Postgres;
    idle on Postgres;
    shutdown on Postgres | Sqlite, selected;
    isolation on Postgres | Sqlite, selected;
    revocation on Postgres | Sqlite, selected;
    network on Postgres, selected;
    scale on Postgres;
    corrupt on Postgres | Sqlite, selected;
    upgrade on Postgres | Sqlite;
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(unknown) = args.cases.iter().find(|case| !NAMES.contains(&case.as_str())) {
        println!("unknown case {unknown}; the cases are {}", NAMES.join(", "));
        return ExitCode::FAILURE;
    }
    let duration = Duration::from_secs(if args.selection { args.seconds.min(5) } else { args.seconds });
    let options = CaseOptions { seed: args.seed, duration, overrides: args.overrides, short: args.selection };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime can be built");
    let is_requested = |name: &str| args.cases.is_empty() || args.cases.iter().any(|case| case == name);
    let outcomes = runtime.block_on(run(options, is_requested));
    let failed: Vec<_> = outcomes.iter().filter(|(_, passed)| !passed).map(|(name, _)| name.as_str()).collect();
    println!("chaos result: {} cases, {} failed {}", outcomes.len(), failed.len(), failed.join(" "));
    if failed.is_empty() && !outcomes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

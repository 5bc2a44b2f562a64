//! Long runs under faults: the real binaries on private databases, with clients that check every promise.
//!
//! `just chaos` runs all cases, `just chaos writers --seed 7` one of them. Every case prints one line a promise and leaves
//! what was done and seen in `target/chaos`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "figures for people")]

mod cases;
mod follower;
mod journal;
mod scene;
mod verdict;

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use flags_tests::database::Kind;

use crate::verdict::Verdict;

#[derive(Parser)]
struct Args {
    /// Cases to run; all if none is named.
    cases: Vec<String>,
    /// Makes random choices repeatable, as far as threads and networks let it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long a case makes trouble, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Overrides of the case `scale`.
    #[arg(long, default_value_t = 1_000_000)]
    overrides: usize,
    /// A short selection, for CI.
    #[arg(long)]
    selection: bool,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    /// How many overrides the case `scale` has.
    pub(crate) overrides: usize,
    /// In the short selection, a tenth of everything.
    pub(crate) short: bool,
}

impl Scale {
    /// So many, or a tenth.
    pub(crate) const fn many(self, count: usize) -> usize {
        if self.short { count.div_ceil(10) } else { count }
    }
}

macro_rules! cases {
    ($($name:ident on $($kind:ident)|+ $(, $selected:ident)?;)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        async fn run(scale: Scale, wanted: impl Fn(&str) -> bool) -> Vec<(String, bool)> {
            let mut outcomes = Vec::new();
            $(
                let selected = !scale.short || [$(stringify!($selected))?].contains(&"selected");
                if wanted(stringify!($name)) && selected {
                    $(
                        let name = format!("{}-{}", stringify!($name), stringify!($kind).to_lowercase());
                        let mut verdict = Verdict::new(&name);
                        cases::$name::run(&name, Kind::$kind, scale, &mut verdict).await;
                        outcomes.push((name, verdict.is_kept()));
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
    network on Postgres, selected;
    scale on Postgres;
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(unknown) = args.cases.iter().find(|case| !NAMES.contains(&case.as_str())) {
        println!("there is no case {unknown}; there are {}", NAMES.join(", "));
        return ExitCode::FAILURE;
    }
    let time = Duration::from_secs(if args.selection { args.seconds.min(5) } else { args.seconds });
    let scale = Scale { seed: args.seed, time, overrides: args.overrides, short: args.selection };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let wanted = |name: &str| args.cases.is_empty() || args.cases.iter().any(|case| case == name);
    let outcomes = runtime.block_on(run(scale, wanted));
    let broken: Vec<_> = outcomes.iter().filter(|(_, kept)| !kept).map(|(name, _)| name.as_str()).collect();
    println!("chaos result: {} cases, {} broken {}", outcomes.len(), broken.len(), broken.join(" "));
    if broken.is_empty() && !outcomes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

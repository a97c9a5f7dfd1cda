//! `tidegate bench`: figures of this program beside the machine's own ceilings, measured in the same run.
//!
//! The daemon is a process of its own with full durability, on SQLite or (`cluster`) on private servers; the load and the provider are in this process;
//! all share the machine. Figures move by tens of percent between runs: compare ratios, never bare numbers. Next:
//! `bench/daemon`, then one file per question.

use std::time::Duration;

use super::exit::{Error, Exit};
use super::output::Output;

pub mod accounts;
mod backlog;
mod call;
mod ceilings;
mod cluster;
mod cluster_ceilings;
mod daemon;
mod drain;
mod enqueue;
mod idle;
mod latency;
mod pace;
mod permits;
mod records;
mod servers;

/// Measure this program beside the machine's own ceilings. About ten minutes for everything, in a release build.
///
/// Example: `tidegate bench enqueue drain --jobs 200000`
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to measure; everything when none is named.
    #[arg(value_enum, value_name = "WHAT")]
    pub what: Vec<What>,
    /// Jobs of each measurement.
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    pub jobs: u32,
    /// Largest backlog of `backlog`. 10,000,000 takes about 4 GB of disk and some minutes.
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u32).range(10_000..=10_000_000))]
    pub backlog: u32,
    /// Records of `records`.
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    pub records: u32,
    /// Seconds for which `call` keeps its rate up, and for which the readers of `records` read each kind of page.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub seconds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// What the machine can do without Tidegate: gRPC, fsync, HTTP.
    Ceilings,
    /// EnqueueJob one by one with 64 in flight; EnqueueJobs and EnqueueStream in thousands.
    Enqueue,
    /// Jobs through the single lane and through the batch lane, no limits.
    Drain,
    /// From the enqueue to the request's arrival, at 100/s and at 1,000/s.
    Latency,
    /// Memory and CPU of a daemon with nothing to do.
    Idle,
    /// Enqueue, release and status with a growing backlog.
    Backlog,
    /// Cached calls over gRPC at 5,000/s, timed from the moment that each was due.
    Call,
    /// Aggregates and pages of a collection of a million records, on SQLite and on PostgreSQL.
    Records,
    /// The form of many daemons: enqueues, drains and permits with a PostgreSQL and a Redis of the bench's own.
    Cluster,
}

impl What {
    const ALL: [What; 9] = [
        What::Ceilings,
        What::Enqueue,
        What::Drain,
        What::Latency,
        What::Idle,
        What::Backlog,
        What::Call,
        What::Records,
        What::Cluster,
    ];
}

/// One printed figure.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
}

impl Figure {
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Figure { name: name.into(), value, unit }
    }

    pub fn rate(name: impl Into<String>, count: u64, took: Duration) -> Self {
        Figure::new(name, count as f64 / took.as_secs_f64().max(1e-9), "/s")
    }
}

/// Measures and prints, a line per figure as soon as it is known.
pub async fn run(args: Args, output: &Output) -> Result<Exit, Error> {
    if cfg!(debug_assertions) {
        output.say("this is a debug build: its figures say nothing; use `make bench`");
    }
    let chosen = if args.what.is_empty() { What::ALL.to_vec() } else { args.what.clone() };
    let length = Duration::from_secs(args.seconds.into());
    for what in chosen {
        output.say(&format!("measuring {what:?} ..."));
        let figures = match what {
            What::Ceilings => ceilings::measure(args.jobs).await?,
            What::Enqueue => enqueue::measure(args.jobs).await?,
            What::Drain => drain::measure(args.jobs).await?,
            What::Latency => latency::measure().await?,
            What::Idle => idle::measure().await?,
            What::Backlog => backlog::measure(args.backlog, output).await?,
            What::Call => call::measure(length).await?,
            What::Records => {
                let size = records::Size { records: args.records, length };
                records::measure(size, args.what.is_empty(), output).await?
            }
            What::Cluster => match servers::Servers::start().await {
                Ok(servers) => cluster::measure(&servers, args.jobs, output).await?,
                // Whoever asks for everything also gets what needs no servers.
                Err(missing) if args.what.is_empty() => {
                    output.say(&format!("left out: {missing}"));
                    Vec::new()
                }
                Err(missing) => return Err(missing),
            },
        };
        figures.iter().try_for_each(|figure| print(output, figure))?;
    }
    Ok(Exit::Done)
}

fn print(output: &Output, f: &Figure) -> Result<(), Error> {
    output.line(&format!("{:<62} {:>12.3} {}", f.name, f.value, f.unit))
}

/// Values at the 50th and 99th percentile, in milliseconds.
pub fn percentiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let at = |share: f64| times.get(((times.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or_default();
    (at(0.5).as_secs_f64() * 1e3, at(0.99).as_secs_f64() * 1e3)
}

//! `tidegate demo`: 40,000 record updates through a simulated provider that allows 50 batch and 3,600 single calls per
//! window. Everything is real but the provider: a daemon on SQLite in a temporary folder, gRPC on loopback.
//!
//! The simulator, and not the daemon, says what arrived. `demo/stage` sets the scene, `demo/tally` judges. Must never
//! know: the engine's inside. Next: `demo/stage`.

use std::time::Duration;

use super::exit::{Error, Exit};
use super::output::Output;
use crate::clock::Clock;

mod stage;
mod tally;

use stage::{Load, Stage};

/// Watch 40,000 record updates leave through a simulated provider that allows 50 batch and 3,600 single calls per minute.
///
/// Everything is real but the provider: a daemon on SQLite in a temporary folder, and gRPC. A minute stands for the
/// hour of a real quota. The final report counts at the provider. Example: `tidegate demo --json`
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print the final report as JSON on stdout.
    #[arg(long)]
    pub json: bool,
    /// Keep both lanes busy for three windows and show how much of the quota is used.
    #[arg(long)]
    pub saturate: bool,
    /// Updates that arrive.
    #[arg(long, default_value_t = 40_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub updates: u32,
    /// Different users that they are about.
    #[arg(long, default_value_t = 25_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub users: u32,
    /// Length of the provider's windows, in seconds; the updates arrive over one window.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..=3_600))]
    pub window: u64,
    /// Seed of who changes when and of the provider's latency.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}

/// Runs the demo to its end. Fails when something was lost, refused or above a limit.
pub async fn run(args: Args, output: &Output) -> Result<Exit, Error> {
    let load = Load {
        updates: if args.saturate { 0 } else { args.updates },
        users: args.users,
        window: Duration::from_secs(args.window),
        seed: args.seed,
        windows_saturated: if args.saturate { 3 } else { 0 },
    };
    let clock = Clock::system();
    let stage = Stage::set(&load, &clock).await?;
    output.say(&format!(
        "provider: {} · daemon: {} · folder: {}",
        stage.provider_url(),
        stage.address(),
        stage.folder()
    ));
    let acked = if args.saturate {
        stage.saturate(&load, &clock, output).await?
    } else {
        stage.arrive(&load, &clock, output).await?
    };
    let report = tally::judge(&load, &acked, stage.strike().await?);
    if args.json {
        output.line(&serde_json::to_string_pretty(&report).map_err(|e| Error::failed(e.to_string()))?)?;
    } else {
        output.raw(report.to_string().as_bytes())?;
    }
    Ok(if report.is_clean() { Exit::Done } else { Exit::Failed })
}

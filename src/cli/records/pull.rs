//! `tidegate records pull`: starts a pull and, when asked to, waits for its end.
//!
//! Must never know: how pages are fetched.

use std::time::Duration;

use super::super::args;
use super::super::connect::Daemon;
use super::super::exit::{Error, Exit};
use super::super::output::Output;
use super::super::show;
use super::pull_state;
use crate::clock::Clock;
use crate::grpc::pb;

/// Between two looks at a pull.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
pub struct Pull {
    /// Name of the collection.
    collection: String,
    /// Ask for everything, whatever is known from before.
    #[arg(long)]
    full: bool,
    /// Wait until it is done. Ends with 7 when it failed, 6 when the time was up.
    #[arg(long)]
    wait: bool,
    /// How long to wait at most, as 90s, 10m or 2d.
    #[arg(long, default_value = "10m", value_parser = args::duration, value_name = "TIME")]
    timeout: Duration,
}

impl Pull {
    pub async fn run(self, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
        let request = pb::PullCollectionRequest { collection: self.collection.clone(), full: self.full };
        let answer = daemon.records().pull_collection(request).await?.into_inner();
        let started = answer.started;
        let Some(mut pull) = answer.pull else { return Err(Error::new(Exit::Failed, "the daemon named no pull")) };
        let clock = Clock::system();
        let deadline = clock.steady() + self.timeout;
        while self.wait && matches!(pull.state(), pb::PullState::Running | pb::PullState::Sweeping) {
            if clock.steady() >= deadline {
                self.show(&pull, started, output)?;
                return Ok(Exit::TimedOut);
            }
            tokio::time::sleep(LOOK_EVERY).await;
            let request = pb::GetCollectionRequest { name: self.collection.clone() };
            let now = daemon.records().get_collection(request).await?.into_inner().collection;
            match now.and_then(|collection| collection.pull) {
                Some(now) if now.id == pull.id => pull = now,
                // Another has begun since, so this one is over.
                _ => break,
            }
        }
        self.show(&pull, started, output)?;
        Ok(if self.wait && pull.state() == pb::PullState::Failed { Exit::EndedBadly } else { Exit::Done })
    }

    fn show(&self, pull: &pb::Pull, started: bool, output: &Output) -> Result<(), Error> {
        if output.message("Pull", pull)? {
            return Ok(());
        }
        let joined = if started { "" } else { ", which was running already" };
        let error = if pull.error.is_empty() { String::new() } else { format!(": {}", pull.error) };
        output.line(&format!(
            "pull {} of {} is {}{joined}: {} pages, {} items, {} changed, {} deleted, {} not taken{error}",
            pull.id,
            self.collection,
            pull_state(pull.state),
            show::count(pull.page_count),
            show::count(pull.item_count),
            show::count(pull.changed_count),
            show::count(pull.deleted_count),
            show::count(pull.rejected_count),
        ))
    }
}

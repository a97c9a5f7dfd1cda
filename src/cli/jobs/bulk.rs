//! Cancel, retry, resolve: by ids, or by a filter after a question.
//!
//! A filter may reach thousands of jobs, so it asks first how many it would be, and asks the person unless `--yes`.
//! Must never know: how an action is carried out. Next: `watch.rs`.

use std::io::{BufRead, IsTerminal};

use super::Decision;
use crate::cli::connect::Daemon;
use crate::cli::exit::{Error, Exit};
use crate::cli::output::{Format, Output};
use crate::cli::show::{self, Rows};
use crate::grpc::pb;

/// Which jobs, and whether to ask.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Bulk {
    /// Ids of jobs, at most 10,000.
    pub ids: Vec<String>,
    /// All jobs that pass this filter and whose state allows it, in place of ids.
    #[arg(short, long, value_name = "FILTER", conflicts_with = "ids", required_unless_present = "ids")]
    pub filter: Option<String>,
    /// Say how many it would be, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}

/// What to do with them.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    Cancel,
    Retry { as_new: bool },
    Resolve(Decision),
}

impl Action {
    fn verb(self) -> &'static str {
        match self {
            Action::Cancel => "cancelled",
            Action::Retry { .. } => "retried",
            Action::Resolve(_) => "resolved",
        }
    }

    /// One request: at most 10,000 jobs.
    async fn ask(self, bulk: &Bulk, validate_only: bool, daemon: &Daemon) -> Result<pb::BulkResult, Error> {
        let (job_ids, filter) = (bulk.ids.clone(), bulk.filter.clone().unwrap_or_default());
        let request_id = String::new();
        let result = match self {
            Action::Cancel => {
                let request = pb::CancelJobsRequest { job_ids, filter, validate_only, request_id };
                daemon.jobs().cancel_jobs(request).await?.into_inner().result
            }
            Action::Retry { as_new } => {
                let request = pb::RetryJobsRequest { job_ids, filter, validate_only, request_id, as_new };
                daemon.jobs().retry_jobs(request).await?.into_inner().result
            }
            Action::Resolve(decision) => {
                let decision = match decision {
                    Decision::Delivered => pb::Decision::Delivered,
                    Decision::Again => pb::Decision::Again,
                    Decision::Dead => pb::Decision::Dead,
                } as i32;
                let request = pb::ResolveJobsRequest { job_ids, filter, decision, validate_only, request_id };
                daemon.jobs().resolve_jobs(request).await?.into_inner().result
            }
        };
        Ok(result.unwrap_or_default())
    }
}

impl Bulk {
    pub async fn run(self, action: Action, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
        let verb = action.verb();
        if self.dry_run {
            let would = action.ask(&self, true, daemon).await?;
            if !output.message("BulkResult", &would)? {
                output.line(&format!("{} of {} jobs would be {verb}", at_least(&would), would.matched_count))?;
            }
            return Ok(Exit::Done);
        }
        if self.filter.is_some() && !self.yes {
            let would = action.ask(&self, true, daemon).await?;
            confirm(&format!("{} jobs will be {verb}", at_least(&would)), output)?;
        }
        let (mut refused, mut unknown) = (0, 0);
        loop {
            let done = action.ask(&self, false, daemon).await?;
            let (of_them, strangers) = report(&done, verb, output)?;
            (refused, unknown) = (refused + of_them, unknown + strangers);
            // A round that changed nothing would be followed by the same one for ever.
            if !done.more || done.changed_count == 0 {
                break;
            }
        }
        Ok(match refused {
            0 => Exit::Done,
            _ if refused == unknown => Exit::NotFound,
            _ => Exit::Conflict,
        })
    }
}

fn at_least(result: &pb::BulkResult) -> String {
    let more = if result.more { "more than " } else { "" };
    format!("{more}{}", show::count(result.changed_count))
}

/// Prints what became of the jobs; returns how many were refused, and how many of those because there is no such job.
fn report(done: &pb::BulkResult, verb: &str, output: &Output) -> Result<(usize, usize), Error> {
    let refused = done.changes.iter().filter(|change| change.error.is_some());
    let is_unknown = |change: &&pb::JobChange| change.state() == pb::JobState::Unspecified;
    let count = (refused.clone().count(), refused.clone().filter(is_unknown).count());
    if output.message("BulkResult", done)? {
        return Ok(count);
    }
    if output.format == Format::Name {
        for change in done.changes.iter().filter(|change| change.error.is_none()) {
            output.line(&change.job_id)?;
        }
        return Ok(count);
    }
    output.line(&format!("{} jobs {verb}", show::count(done.changed_count)))?;
    if count.0 > 0 {
        let mut rows = Rows::new(&["ID", "STATE", "WHY NOT"]);
        for change in refused {
            let why = change.error.as_ref().map(|e| e.message.clone()).unwrap_or_default();
            let state = if is_unknown(&change) { "-".to_owned() } else { show::job_state(change.state) };
            rows.add([change.job_id.clone(), state, why]);
        }
        output.say(&rows.text());
    }
    Ok(count)
}

/// Asks the person at the terminal; without one, asks for `--yes`.
pub fn confirm(what: &str, output: &Output) -> Result<(), Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage(format!("{what}, and nobody can be asked")).hint("add --yes, or look with --dry-run"));
    }
    output.say(&format!("{what}. Go on? [y/N]"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Error::new(Exit::Interrupted, "nothing was changed")),
    }
}

//! `tidegate runs`: sets of jobs with shared progress, forecast, pause and cancel.
//!
//! Must never know: how progress is counted. Next: `runs/create.rs`.

use clap::Subcommand;

use super::again::Again;
use super::connect::Daemon;
use super::exit::{Error, Exit};
use super::jobs::bulk::confirm;
use super::output::{Format, Output};
use super::show::{self, Rows, Times};
use crate::grpc::pb;

pub mod create;
pub mod progress;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a run from a file of jobs, one JSON object per line, and show how it goes.
    ///
    /// A line is a JobSpec in the proto's JSON: provider, operation, key, payload, account, tenant, labels,
    /// priorityClass, delay, dueTime, idempotencyKey. The payload may be any JSON value; a text is taken as the
    /// document itself. Lines that are refused are told with their number, and the others are kept.
    ///
    /// Example: `tidegate runs create users.jsonl --target crm/sync_user --name 'nightly sync' --wait`
    Create(create::Create),
    /// List runs, newest first.
    ///
    /// Example: `tidegate runs list -n 10`
    List {
        /// How many at most.
        #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
        limit: usize,
        #[command(flatten)]
        again: Again,
    },
    /// Show one run with its progress and forecast.
    ///
    /// Example: `tidegate runs get 019aa8c2-7d31-7123-8000-000000000001`
    Get {
        /// Id of the run.
        id: String,
    },
    /// Show the progress of a run until it has ended. Ends with 7 when jobs of it ended dead or cancelled.
    ///
    /// Example: `tidegate runs watch 019aa8c2-7d31-7123-8000-000000000001`
    Watch {
        /// Id of the run.
        id: String,
    },
    /// Hold the jobs of a run back. Calls on the wire end as they would.
    ///
    /// Example: `tidegate runs pause 019aa8c2-7d31-7123-8000-000000000001`
    Pause {
        /// Id of the run.
        id: String,
    },
    /// Let the jobs of a paused run go again.
    ///
    /// Example: `tidegate runs resume 019aa8c2-7d31-7123-8000-000000000001`
    Resume {
        /// Id of the run.
        id: String,
    },
    /// Say that no more jobs will be added, so that the run can finish.
    ///
    /// Example: `tidegate runs seal 019aa8c2-7d31-7123-8000-000000000001`
    Seal {
        /// Id of the run.
        id: String,
    },
    /// Take back what an ended run did: a new run with the inverses of its delivered jobs, the last one first.
    ///
    /// Each operation declares its inverse in its provider's file: `undo = "restore_track"`. Asking again shows the same
    /// run.
    ///
    /// Example: `tidegate runs undo 019aa8c2-7d31-7123-8000-000000000001 --dry-run`
    Undo {
        /// Id of the run.
        id: String,
        /// Only say what would be undone.
        #[arg(long)]
        dry_run: bool,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Call off all jobs of a run that are not final.
    ///
    /// Example: `tidegate runs cancel 019aa8c2-7d31-7123-8000-000000000001 --yes`
    Cancel {
        /// Id of the run.
        id: String,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
}

pub async fn run(verb: Verb, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let mut runs = daemon.runs();
    let after = match verb {
        Verb::Create(create) => return create.run(daemon, output).await,
        Verb::List { limit, again } => {
            return again.show(output, async || list(limit, daemon, output).await).await;
        }
        Verb::Watch { id } => return progress::watch(&id, daemon, output).await,
        Verb::Get { id } => runs.get_run(pb::GetRunRequest { run_id: id }).await?.into_inner().run,
        Verb::Pause { id } => runs.pause_run(pb::PauseRunRequest { run_id: id }).await?.into_inner().run,
        Verb::Resume { id } => runs.resume_run(pb::ResumeRunRequest { run_id: id }).await?.into_inner().run,
        Verb::Seal { id } => runs.seal_run(pb::SealRunRequest { run_id: id }).await?.into_inner().run,
        Verb::Undo { id, dry_run, yes } => match undo(id, dry_run, yes, daemon, output).await? {
            None => return Ok(Exit::Done),
            run => run,
        },
        Verb::Cancel { id, yes } => {
            if !yes {
                let run = runs.get_run(pb::GetRunRequest { run_id: id.clone() }).await?.into_inner().run;
                confirm(&format!("{} jobs will be cancelled", show::count(left(&run.unwrap_or_default()))), output)?;
            }
            runs.cancel_run(pb::CancelRunRequest { run_id: id }).await?.into_inner().run
        }
    };
    output.list(("Run", "runs"), after.as_slice(), |run| run.id.clone(), table)?;
    Ok(Exit::Done)
}

/// `None`: only said what would be done.
async fn undo(
    run_id: String,
    dry_run: bool,
    yes: bool,
    daemon: &Daemon,
    output: &Output,
) -> Result<Option<pb::Run>, Error> {
    let ask = |validate_only| pb::UndoRunRequest { run_id: run_id.clone(), validate_only };
    if dry_run || !yes {
        let would = daemon.runs().undo_run(ask(true)).await?.into_inner();
        let mut said = format!("{} delivered jobs will be undone", show::count(would.job_count));
        if would.forgotten_count > 0 {
            said += &format!("; {} are forgotten and cannot be", show::count(would.forgotten_count));
        }
        if dry_run {
            output.say(&said);
            return Ok(None);
        }
        confirm(&said, output)?;
    }
    // One call fills for so long; the next one goes on.
    loop {
        let done = daemon.runs().undo_run(ask(false)).await?.into_inner();
        if done.complete {
            return Ok(done.run);
        }
    }
}

/// Jobs that are not final.
pub fn left(run: &pb::Run) -> i64 {
    let counts = run.counts.unwrap_or_default();
    counts.waiting + counts.calling + counts.unknown
}

async fn list(limit: usize, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let mut runs = Vec::new();
    let mut request = pb::ListRunsRequest::default();
    while runs.len() < limit {
        request.page_size = i32::try_from((limit - runs.len()).min(1_000)).unwrap_or(1_000);
        let page = daemon.runs().list_runs(request.clone()).await?.into_inner();
        runs.extend(page.runs);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    output.list(("Run", "runs"), &runs, |run| run.id.clone(), table)?;
    if output.format == Format::Table && !request.page_token.is_empty() {
        output.say(&format!("there are more; --limit {limit} was reached"));
    }
    Ok(Exit::Done)
}

fn table(runs: &[pb::Run], wide: bool) -> Rows {
    let times = Times::new(wide);
    let mut header = vec!["ID", "NAME", "STATE", "JOBS", "DELIVERED", "DEAD", "LEFT", "AGE", "THROUGH"];
    if wide {
        header.extend(["TENANT", "CALLING", "UNKNOWN", "CANCELLED", "FINISHED"]);
    }
    let mut rows = Rows::new(&header);
    for run in runs {
        let counts = run.counts.unwrap_or_default();
        let mut cells = vec![
            run.id.clone(),
            run.display_name.clone(),
            show::run_state(run.state),
            show::count(run.job_count),
            show::count(counts.delivered),
            show::count(counts.dead),
            show::count(left(run)),
            times.show(run.create_time.as_ref()),
            times.show(run.forecast_finish_time.as_ref()),
        ];
        if wide {
            cells.extend([
                run.tenant.clone(),
                show::count(counts.calling),
                show::count(counts.unknown),
                show::count(counts.cancelled),
                times.show(run.finish_time.as_ref()),
            ]);
        }
        rows.add(cells);
    }
    rows
}

//! `tidegate jobs`: find jobs, see one, watch, wait, and change what becomes of them.
//!
//! Must never know: how a job is stored. Next: `jobs/bulk.rs` for what touches many at once.

use std::time::Duration;

use clap::Subcommand;

use super::again::Again;
use super::args::{self, Priority, State, Which};
use super::calls;
use super::connect::Daemon;
use super::exit::{Error, Exit};
use super::output::{Format, Output};
use super::show::{self, Rows, Times};
use crate::grpc::pb;

pub mod bulk;
pub mod watch;

/// Jobs per request when a list is read page by page.
const PAGE: i32 = 1_000;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List jobs, newest first.
    ///
    /// Example: `tidegate jobs list --state dead --filter 'last_status = 422'`
    List {
        #[command(flatten)]
        which: Which,
        /// How many at most.
        #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
        limit: usize,
        #[command(flatten)]
        again: Again,
    },
    /// Show one job with its payload, its result and the calls that carried it.
    ///
    /// Example: `tidegate jobs get 019aa8c2-7d31-7123-8000-00000000002a -o json`
    Get {
        /// Id of the job.
        id: String,
    },
    /// Show changes of jobs as they are committed, until interrupted. Goes on by itself when the daemon restarts.
    ///
    /// Example: `tidegate jobs watch --provider crm -o jsonl`
    Watch {
        #[command(flatten)]
        which: Which,
        /// Go on after this point: the `resumeToken` of a message seen with `-o jsonl` and the same filter.
        #[arg(long, value_name = "TOKEN")]
        resume: Option<String>,
        /// First show the jobs that have work left, at most 1,000.
        #[arg(long, conflicts_with = "resume")]
        snapshot: bool,
    },
    /// Wait until jobs are settled: delivered, dead, cancelled, or unknown.
    ///
    /// Ends with 0 when all were delivered (or reached --state), 6 when the time was up, 7 when one ended otherwise.
    ///
    /// Example: `tidegate jobs wait --timeout 10m $(tidegate jobs list --state waiting -o name)`
    Wait {
        /// Ids of the jobs, at most 1,000.
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        until: Until,
    },
    /// Call jobs off. One that is on the wire is not tried again.
    ///
    /// Example: `tidegate jobs cancel --filter 'provider = "crm" AND labels.team = "x"' --dry-run`
    Cancel {
        #[command(flatten)]
        bulk: bulk::Bulk,
    },
    /// Bring dead jobs back to waiting, and make waiting ones that are not due become due now.
    ///
    /// Example: `tidegate jobs retry --filter 'state = DEAD AND last_status = 401' --yes`
    Retry {
        #[command(flatten)]
        bulk: bulk::Bulk,
        /// Run dead jobs again as new: attempts start at 0, and the provider sees a new idempotency key.
        #[arg(long)]
        as_new: bool,
    },
    /// Change a job that waits.
    ///
    /// Example: `tidegate jobs edit 019aa8c2-7d31-7123-8000-00000000002a --priority urgent --delay 0s`
    Edit(Edit),
    /// Decide about jobs whose answer was lost.
    ///
    /// Example: `tidegate jobs resolve delivered 019aa8c2-7d31-7123-8000-00000000002a`
    Resolve {
        /// `delivered`: it did happen. `again`: send it again. `dead`: give it up.
        #[arg(value_enum)]
        decision: Decision,
        #[command(flatten)]
        bulk: bulk::Bulk,
    },
    /// Say why a job waits, and when it will go.
    ///
    /// Example: `tidegate jobs explain 019aa8c2-7d31-7123-8000-00000000002a`
    Explain {
        /// Id of the job.
        id: String,
    },
}

/// What a person decides about a lost answer.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Decision {
    Delivered,
    Again,
    Dead,
}

/// What to wait for, and how long.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Until {
    /// Wait for this state. Default: any in which nothing happens by itself any more.
    #[arg(long = "until", value_enum, value_name = "STATE")]
    pub state: Option<State>,
    /// How long at most, as 90s, 10m or 2d.
    #[arg(long, default_value = "10m", value_parser = args::duration, value_name = "TIME")]
    pub timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub struct Edit {
    /// Id of the job.
    id: String,
    /// The new payload: a JSON text, `@file`, or `-` for stdin.
    #[arg(short, long, value_name = "JSON")]
    data: Option<String>,
    /// The new priority.
    #[arg(long, value_enum)]
    priority: Option<Priority>,
    /// Leave at this time at the earliest, as 2026-11-22T14:30 (local) or with a zone.
    #[arg(long, value_parser = args::time, value_name = "TIME")]
    at: Option<prost_types::Timestamp>,
    /// Leave after this time at the earliest, as 90s or 1h30m.
    #[arg(long, value_parser = args::duration, value_name = "TIME", conflicts_with = "at")]
    delay: Option<Duration>,
}

pub async fn run(verb: Verb, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    match verb {
        Verb::List { which, limit, again } => {
            again.show(output, async || list(which.filter(), limit, daemon, output).await).await
        }
        Verb::Get { id } => get(id, daemon, output).await,
        Verb::Watch { which, resume, snapshot } => watch::run(which.filter(), resume, snapshot, daemon, output).await,
        Verb::Wait { ids, until } => wait(ids, until, daemon, output).await,
        Verb::Cancel { bulk } => bulk.run(bulk::Action::Cancel, daemon, output).await,
        Verb::Retry { bulk, as_new } => bulk.run(bulk::Action::Retry { as_new }, daemon, output).await,
        Verb::Resolve { decision, bulk } => bulk.run(bulk::Action::Resolve(decision), daemon, output).await,
        Verb::Edit(edit) => change(edit, daemon, output).await,
        Verb::Explain { id } => explain(id, daemon, output).await,
    }
}

/// Lists jobs that pass `filter`: also what `tidegate dead list` does.
pub async fn list(filter: String, limit: usize, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let mut jobs = Vec::new();
    let mut request = pb::ListJobsRequest { filter, ..Default::default() };
    while jobs.len() < limit {
        request.page_size = i32::try_from(limit - jobs.len()).unwrap_or(PAGE).min(PAGE);
        let page = daemon.jobs().list_jobs(request.clone()).await?.into_inner();
        jobs.extend(page.jobs);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    output.list(("Job", "jobs"), &jobs, |job| job.id.clone(), table)?;
    if output.format == Format::Table && !request.page_token.is_empty() {
        output.say(&format!("there are more; --limit {limit} was reached"));
    }
    Ok(Exit::Done)
}

fn table(jobs: &[pb::Job], wide: bool) -> Rows {
    let times = Times::new(wide);
    let mut header = vec!["ID", "STATE", "TARGET", "KEY", "TRIES", "AGE", "WAITS FOR", "LAST"];
    if wide {
        header.extend(["ACCOUNT", "TENANT", "PRIORITY", "DUE", "UPDATED", "RUN"]);
    }
    let mut rows = Rows::new(&header);
    for job in jobs {
        let mut cells = vec![
            job.id.clone(),
            show::job_state(job.state),
            format!("{}/{}", job.provider, job.operation),
            job.key.clone(),
            job.attempts.to_string(),
            times.show(job.create_time.as_ref()),
            waits_for(job, times),
            last(job),
        ];
        if wide {
            cells.extend([
                job.account.clone(),
                job.tenant.clone(),
                show::priority(job.priority_class),
                times.show(job.due_time.as_ref()),
                times.show(job.update_time.as_ref()),
                job.run_id.clone(),
            ]);
        }
        rows.add(cells);
    }
    rows
}

/// `limit core, in 4m`.
fn waits_for(job: &pb::Job, times: Times) -> String {
    use pb::waiting_on::Kind;
    let Some(on) = &job.waiting_on else { return String::new() };
    let what = match on.kind() {
        Kind::Unspecified | Kind::Nothing => return String::new(),
        Kind::Limit => format!("limit {}", on.limit),
        Kind::NotDue => "its time".to_owned(),
        Kind::Key => "its key".to_owned(),
        Kind::InFlight => "a free slot".to_owned(),
        Kind::UnknownProvider => "its declaration".to_owned(),
        Kind::Decision => "a decision".to_owned(),
        other => show::word(other.as_str_name(), "KIND_"),
    };
    let when = times.show(job.next_attempt_time.as_ref());
    if when.is_empty() { what } else { format!("{what}, {when}") }
}

fn last(job: &pb::Job) -> String {
    match (job.last_status, job.last_error.as_str()) {
        (0, error) => args::head(error),
        (status, "") => status.to_string(),
        (status, error) => format!("{status} {}", args::head(error)),
    }
}

async fn get(id: String, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let request = pb::GetJobRequest { job_id: id, view: pb::View::Full as i32 };
    let answer = daemon.jobs().get_job(request).await?.into_inner();
    if output.message("GetJobResponse", &answer)? {
        return Ok(Exit::Done);
    }
    let Some(job) = answer.job else { return Err(Error::failed("the daemon answered without a job")) };
    if output.format == Format::Name {
        output.line(&job.id)?;
        return Ok(Exit::Done);
    }
    let times = Times::new(true);
    let labels: Vec<String> = job.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    output.line(&show::facts(&[
        ("id", job.id.clone()),
        ("state", show::job_state(job.state)),
        ("target", format!("{}/{}", job.provider, job.operation)),
        ("key", job.key.clone()),
        ("account", job.account.clone()),
        ("tenant", job.tenant.clone()),
        ("run", job.run_id.clone()),
        ("priority", show::priority(job.priority_class)),
        ("waits for", waits_for(&job, times)),
        ("attempts", job.attempts.to_string()),
        ("throttles", job.throttles.to_string()),
        ("created", times.show(job.create_time.as_ref())),
        ("due", times.show(job.due_time.as_ref())),
        ("finished", times.show(job.finish_time.as_ref())),
        ("labels", labels.join(" ")),
        ("last", last(&job)),
        ("payload", job.payload.clone()),
        ("result", job.result.clone()),
    ]))?;
    if !answer.calls.is_empty() {
        output.line(&format!("\n{}", calls::table(&answer.calls, output.format == Format::Wide).text()))?;
    }
    Ok(Exit::Done)
}

/// Waits for jobs and prints them as they ended: also what `tidegate enqueue --wait` does.
pub async fn wait(ids: Vec<String>, until: Until, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let clock = crate::clock::Clock::system();
    let deadline = clock.steady() + until.timeout;
    let wanted = until.state.map_or(pb::JobState::Unspecified, State::proto);
    loop {
        // The daemon answers at the latest after ten minutes; longer waits ask again.
        let left = deadline.since(clock.steady()).min(Duration::from_secs(600));
        let timeout = Some(args::proto_duration(left));
        let request = pb::WaitJobsRequest { job_ids: ids.clone(), timeout, state: wanted as i32 };
        let answer = daemon.jobs().wait_jobs(request).await?.into_inner();
        let over = clock.steady() >= deadline;
        if !answer.done && !over {
            continue;
        }
        output.list(("Job", "jobs"), &answer.jobs, |job| job.id.clone(), table)?;
        if let Some(missing) = answer.missing_job_ids.first() {
            return Err(Error::new(Exit::NotFound, format!("expected ids of jobs, got {missing}, which no job has")));
        }
        if !answer.done {
            let hint = "nothing is lost: wait again, or ask `tidegate jobs explain`";
            return Err(Error::new(Exit::TimedOut, "the time was up before the jobs were settled").hint(hint));
        }
        let good = match wanted {
            pb::JobState::Unspecified => pb::JobState::Delivered,
            state => state,
        };
        let missed = answer.jobs.iter().filter(|job| job.state() != good).count();
        return match missed {
            0 => Ok(Exit::Done),
            n => {
                let what = show::job_state(good as i32);
                Err(Error::new(Exit::EndedBadly, format!("{n} of {} jobs did not end {what}", answer.jobs.len()))
                    .hint("see why with `tidegate jobs get ID`"))
            }
        };
    }
}

async fn change(edit: Edit, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let after = |delay: Duration| {
        let at = crate::clock::Clock::system().now() + delay;
        prost_types::Timestamp {
            seconds: at.0.div_euclid(1_000_000),
            nanos: (at.0.rem_euclid(1_000_000) * 1_000) as i32,
        }
    };
    let request = pb::EditJobRequest {
        job_id: edit.id,
        payload: edit.data.as_deref().map(args::payload).transpose()?,
        priority_class: edit.priority.map_or(0, Priority::proto),
        due_time: edit.at.or(edit.delay.map(after)),
    };
    if request.payload.is_none() && request.priority_class == 0 && request.due_time.is_none() {
        return Err(Error::usage("expected something to change: --data, --priority, --at or --delay"));
    }
    let answer = daemon.jobs().edit_job(request).await?.into_inner();
    output.list(("Job", "jobs"), answer.job.as_slice(), |job| job.id.clone(), table)?;
    Ok(Exit::Done)
}

async fn explain(id: String, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let answer = daemon.jobs().explain_job(pb::ExplainJobRequest { job_id: id }).await?.into_inner();
    if output.message("ExplainJobResponse", &answer)? {
        return Ok(Exit::Done);
    }
    output.line(&answer.sentence)?;
    if let Some(next) = &answer.next_attempt_time {
        let ahead = show::count(answer.ahead_count);
        output.line(&format!("next attempt at {}, {ahead} jobs before it", show::clock_time(next)))?;
    }
    Ok(Exit::Done)
}

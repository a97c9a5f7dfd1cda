//! `tidegate schedules`: what starts by itself, and when.
//!
//! Must never know: cron lines. Next: `runs.rs`.

use std::time::Duration;

use clap::Subcommand;

use super::again::Again;
use super::args::{self, Target};
use super::connect::Daemon;
use super::exit::{Error, Exit};
use super::output::Output;
use super::show::{self, Rows, Times};
use crate::grpc::pb;
use crate::grpc::pb::schedule_spec as s;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Declare a schedule of one job, of a pull, or of cached answers to be thrown away. More jobs: `--spec`.
    ///
    /// Example: `tidegate schedules create refresh --cron '*/15 * * * *' --zone Europe/Berlin --job crm/pull`
    Create(Create),
    /// Put another declaration in the place of one.
    ///
    /// Example: `tidegate schedules update refresh --cron '*/5 * * * *' --job crm/pull`
    Update(Create),
    /// List schedules, by name.
    ///
    /// Example: `tidegate schedules list -o wide`
    List {
        #[command(flatten)]
        again: Again,
    },
    /// Show one schedule.
    ///
    /// Example: `tidegate schedules get refresh -o json`
    Get {
        /// Its name.
        name: String,
    },
    /// Let no more ticks happen.
    ///
    /// Example: `tidegate schedules pause refresh`
    Pause {
        /// Its name.
        name: String,
    },
    /// Let it tick again, from now on.
    ///
    /// Example: `tidegate schedules resume refresh`
    Resume {
        /// Its name.
        name: String,
    },
    /// Start now what a tick would start.
    ///
    /// Example: `tidegate schedules run refresh`
    Run {
        /// Its name.
        name: String,
    },
    /// Forget a schedule; its runs go on.
    ///
    /// Example: `tidegate schedules delete refresh`
    Delete {
        /// Its name.
        name: String,
    },
}

/// How ticks and runs go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Overlap {
    Skip,
    Queue,
    Allow,
    CancelOther,
}

#[derive(Debug, clap::Args)]
pub struct Create {
    /// Its name, a word.
    name: String,
    /// All of it as the JSON of a ScheduleSpec: a text, `@file`, or `-` for stdin.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["cron", "job", "pull", "invalidate"])]
    spec: Option<String>,
    /// Minute, hour, day of month, month, day of week; or `@daily` and its kin.
    #[arg(long, value_name = "LINE", required_unless_present = "spec")]
    cron: Option<String>,
    /// The zone on whose clock the line is read.
    #[arg(long, default_value = "UTC")]
    zone: String,
    /// Each tick is late by a part of this.
    #[arg(long, default_value = "0s", value_parser = args::duration, value_name = "TIME")]
    jitter: Duration,
    /// While the run of the tick before has jobs to do.
    #[arg(long, value_enum, default_value_t = Overlap::Skip)]
    overlap: Overlap,
    /// Ticks missed while no daemon ran: `skip`, `one` for all, or a number, the newest so many.
    #[arg(long, default_value = "one", value_parser = missed, value_name = "WHICH")]
    missed: (i32, i32),
    /// The job that a tick starts.
    #[arg(long, value_parser = args::target, value_name = "PROVIDER/OP", required_unless_present_any = ["spec", "pull", "invalidate"])]
    job: Option<Target>,
    /// Its payload: a JSON text, `@file`, or `-` for stdin. Default: null.
    #[arg(short, long, value_name = "JSON")]
    data: Option<String>,
    /// Its key.
    #[arg(long)]
    key: Option<String>,
    /// Its account.
    #[arg(long)]
    account: Option<String>,
    /// Pull this collection.
    #[arg(long, value_name = "COLLECTION", conflicts_with_all = ["job", "invalidate"])]
    pull: Option<String>,
    /// The pull asks for everything, whatever is known from before.
    #[arg(long, requires = "pull")]
    full: bool,
    /// Throw cached answers away: NAMESPACE:PREFIX, as `crm:/users/`.
    #[arg(long, value_name = "NAMESPACE:PREFIX", conflicts_with = "job")]
    invalidate: Option<String>,
}

fn missed(text: &str) -> Result<(i32, i32), String> {
    match text {
        "skip" => Ok((s::Missed::Skip as i32, 0)),
        "one" => Ok((s::Missed::One as i32, 0)),
        n => match n.parse::<i32>() {
            Ok(n) if n > 0 => Ok((s::Missed::All as i32, n)),
            _ => Err("expected skip, one, or a number above 0".to_owned()),
        },
    }
}

impl Create {
    fn spec(&self) -> Result<pb::ScheduleSpec, Error> {
        if let Some(spec) = &self.spec {
            let wrong = |e: serde_json::Error| Error::usage(format!("expected a ScheduleSpec in JSON: {e}"));
            return crate::grpc::json::from_json("ScheduleSpec", &args::payload(spec)?).map_err(wrong);
        }
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let target = match (&self.job, &self.pull, &self.invalidate) {
            (Some(job), ..) => s::Target::Jobs(pb::ScheduledJobs {
                jobs: vec![pb::ScheduledJob {
                    provider: job.provider.clone(),
                    operation: job.operation.clone(),
                    account: text(&self.account),
                    key: text(&self.key),
                    payload: self.data.as_deref().map(args::payload).transpose()?.unwrap_or_default(),
                    ..Default::default()
                }],
            }),
            (None, Some(collection), _) => {
                s::Target::Pull(pb::PullCollectionRequest { collection: collection.clone(), full: self.full })
            }
            (None, None, Some(which)) => {
                let (namespace, prefix) = which.split_once(':').unwrap_or((which, ""));
                let which = Some(pb::invalidate_cache_request::Which::Prefix(prefix.to_owned()));
                s::Target::Invalidate(pb::InvalidateCacheRequest { namespace: namespace.to_owned(), which })
            }
            (None, None, None) => {
                return Err(Error::usage("say what a tick starts: --job, --pull or --invalidate".to_owned()));
            }
        };
        let overlap = match self.overlap {
            Overlap::Skip => s::Overlap::Skip,
            Overlap::Queue => s::Overlap::Queue,
            Overlap::Allow => s::Overlap::Allow,
            Overlap::CancelOther => s::Overlap::CancelOther,
        };
        Ok(pb::ScheduleSpec {
            cron: text(&self.cron),
            zone: self.zone.clone(),
            jitter: Some(args::proto_duration(self.jitter)),
            overlap: overlap as i32,
            missed: self.missed.0,
            missed_max: self.missed.1,
            target: Some(target),
        })
    }
}

pub async fn run(verb: Verb, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let mut schedules = daemon.schedules();
    let after = match verb {
        Verb::List { again } => return again.show(output, async || list(daemon, output).await).await,
        Verb::Create(create) => {
            let spec = Some(create.spec()?);
            let request = pb::CreateScheduleRequest { name: create.name, spec, validate_only: false };
            schedules.create_schedule(request).await?.into_inner().schedule
        }
        Verb::Update(update) => {
            let spec = Some(update.spec()?);
            let request = pb::UpdateScheduleRequest { name: update.name, spec, etag: String::new() };
            schedules.update_schedule(request).await?.into_inner().schedule
        }
        Verb::Get { name } => schedules.get_schedule(pb::GetScheduleRequest { name }).await?.into_inner().schedule,
        Verb::Pause { name } => {
            schedules.pause_schedule(pb::PauseScheduleRequest { name }).await?.into_inner().schedule
        }
        Verb::Resume { name } => {
            schedules.resume_schedule(pb::ResumeScheduleRequest { name }).await?.into_inner().schedule
        }
        Verb::Run { name } => schedules.run_schedule(pb::RunScheduleRequest { name }).await?.into_inner().schedule,
        Verb::Delete { name } => {
            schedules.delete_schedule(pb::DeleteScheduleRequest { name }).await?;
            return Ok(Exit::Done);
        }
    };
    output.list(("Schedule", "schedules"), after.as_slice(), |s| s.name.clone(), table)?;
    Ok(Exit::Done)
}

async fn list(daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let mut all = Vec::new();
    let mut request = pb::ListSchedulesRequest { page_size: 1_000, ..Default::default() };
    loop {
        let page = daemon.schedules().list_schedules(request.clone()).await?.into_inner();
        all.extend(page.schedules);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    output.list(("Schedule", "schedules"), &all, |s| s.name.clone(), table)?;
    Ok(Exit::Done)
}

fn table(schedules: &[pb::Schedule], wide: bool) -> Rows {
    let times = Times::new(wide);
    let mut header = vec!["NAME", "CRON", "ZONE", "STARTS", "NEXT", "LAST", "DID"];
    if wide {
        header.extend(["OVERLAP", "MISSED", "RUN", "WAITING", "DECLARED BY"]);
    }
    let mut rows = Rows::new(&header);
    for schedule in schedules {
        let spec = schedule.spec.clone().unwrap_or_default();
        let starts = match &spec.target {
            Some(s::Target::Jobs(jobs)) => match jobs.jobs.as_slice() {
                [one] => format!("{}/{}", one.provider, one.operation),
                many => format!("{} jobs", many.len()),
            },
            Some(s::Target::Invalidate(which)) => format!("invalidates {}", which.namespace),
            Some(s::Target::Pull(pull)) => format!("pulls {}", pull.collection),
            None => String::new(),
        };
        let next = if schedule.paused { "paused".to_owned() } else { times.show(schedule.next_start_time.as_ref()) };
        let mut cells = vec![
            schedule.name.clone(),
            spec.cron.clone(),
            spec.zone.clone(),
            starts,
            next,
            times.show(schedule.last_time.as_ref()),
            schedule.last_outcome.clone(),
        ];
        if wide {
            cells.extend([
                show::word(spec.overlap().as_str_name(), "OVERLAP_"),
                show::word(spec.missed().as_str_name(), "MISSED_"),
                schedule.last_run_id.clone(),
                schedule.queued_times.len().to_string(),
                schedule.actor.clone(),
            ]);
        }
        rows.add(cells);
    }
    rows
}

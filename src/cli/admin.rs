//! `tidegate workers`, `events`, `dead`, `drain`: the daemon and what it did.
//!
//! Must never know: how the log is kept. Next: `doctor.rs`.

use std::time::Duration;

use clap::Subcommand;
use tonic_types::StatusExt;

use super::again::Again;
use super::args;
use super::connect::Daemon;
use super::exit::{Error, Exit};
use super::jobs::bulk::{Action, Bulk, confirm};
use super::output::{Format, Output};
use super::show::{self, Rows, Times};
use crate::grpc::pb;
use crate::grpc::pb::event::What;

/// How long one request for events stays open when there is nothing to tell.
const EVENTS_WAIT: Duration = Duration::from_secs(20);

#[derive(Debug, Subcommand)]
pub enum EventsVerb {
    /// Show the event log as it grows, until interrupted.
    ///
    /// Example: `tidegate events tail --last 20 -o jsonl`
    Tail {
        /// Begin after the event with this number. 0: the oldest kept.
        #[arg(long, value_name = "SEQUENCE", conflicts_with = "last")]
        after: Option<u32>,
        /// Begin this many events before the end.
        #[arg(long, default_value_t = 10, value_name = "N")]
        last: u32,
        /// Stop at the end of the log.
        #[arg(long)]
        no_follow: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum DeadVerb {
    /// List dead letters: jobs that gave up, newest first.
    ///
    /// Example: `tidegate dead list --filter 'provider = "crm"'`
    List {
        /// Only those that pass this filter.
        #[arg(short, long, value_name = "FILTER")]
        filter: Option<String>,
        /// How many at most.
        #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
        limit: usize,
        #[command(flatten)]
        again: Again,
    },
    /// Bring dead letters back to waiting.
    ///
    /// Example: `tidegate dead retry --filter 'last_status = 401' --yes`
    Retry {
        #[command(flatten)]
        bulk: Bulk,
        /// Run them again as new: attempts start at 0, and the provider sees a new idempotency key.
        #[arg(long)]
        as_new: bool,
    },
}

pub async fn dead(verb: DeadVerb, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let and = |filter: Option<String>| filter.map_or_else(String::new, |f| format!(" AND ({f})"));
    match verb {
        DeadVerb::List { filter, limit, again } => {
            let filter = format!("state = DEAD{}", and(filter));
            again.show(output, async || super::jobs::list(filter.clone(), limit, daemon, output).await).await
        }
        DeadVerb::Retry { mut bulk, as_new } => {
            bulk.filter = bulk.filter.map(|f| format!("state = DEAD{}", and(Some(f))));
            bulk.run(Action::Retry { as_new }, daemon, output).await
        }
    }
}

fn store_line(store: &pb::StoreStatus) -> String {
    match store.fault.is_empty() {
        true => format!("{}, {}, {} bytes", store.kind, store.durability, show::count(store.size_bytes)),
        false => format!("does not answer: {}", store.fault),
    }
}

/// Version, store, the daemons that share the work, and the supervised tasks.
pub async fn workers(daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let answer = daemon.admin().get_daemon(pb::GetDaemonRequest {}).await?.into_inner();
    let about = answer.daemon.unwrap_or_default();
    if output.message("Daemon", &about)? {
        return Ok(Exit::Done);
    }
    let times = Times::new(output.format == Format::Wide);
    if output.format != Format::Name {
        let store = about.store.clone().unwrap_or_default();
        let counts = about.counts.unwrap_or_default();
        output.line(&show::facts(&[
            ("version", about.version.clone()),
            ("pid", about.pid.to_string()),
            ("started", times.show(about.start_time.as_ref())),
            ("store", store_line(&store)),
            ("jobs", format!("{} waiting, {} calling", show::count(counts.waiting), show::count(counts.calling))),
            ("draining", if about.draining { "yes".to_owned() } else { String::new() }),
            ("not ready", about.obstacles.join("; ")),
            ("held", about.remarks.join("; ")),
        ]))?;
        output.line("")?;
        if let Some(cluster) = &about.cluster {
            output.line(&super::cluster::shown(cluster, output.format == Format::Wide))?;
            output.line("")?;
        }
        if !about.workers.is_empty() {
            output.line(&programs(&about.workers, times).text())?;
            output.line("")?;
        }
    }
    output.list(
        ("Actor", "actors"),
        &about.actors,
        |a| a.name.clone(),
        |actors, _| {
            let mut rows = Rows::new(&["ACTOR", "ALIVE", "STARTED", "LAST BEAT", "RESTARTS", "LAST REASON"]);
            for actor in actors {
                rows.add([
                    actor.name.clone(),
                    if actor.alive { "yes" } else { "NO" }.to_owned(),
                    times.show(actor.start_time.as_ref()),
                    times.show(actor.last_beat_time.as_ref()),
                    actor.restart_count.to_string(),
                    actor.last_reason.clone(),
                ]);
            }
            rows
        },
    )?;
    Ok(Exit::Done)
}

/// Programs that take jobs, and what each works on.
fn programs(workers: &[pb::Worker], times: Times) -> Rows {
    let mut rows = Rows::new(&["WORKER", "OPERATIONS", "SEATS", "HEARD", "WORKS ON"]);
    for worker in workers {
        let works_on = worker.leases.iter().map(|lease| match &lease.progress {
            Some(p) => format!("{} {}", lease.job_id, show::progress(p)),
            None => lease.job_id.clone(),
        });
        rows.add([
            worker.name.clone(),
            worker.operations.join(", "),
            format!("{}/{}", worker.taken_seats, worker.seats),
            times.show(worker.heard_time.as_ref()),
            works_on.collect::<Vec<_>>().join(", "),
        ]);
    }
    rows
}

pub async fn drain(yes: bool, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    if !yes {
        confirm("the daemon will accept and release nothing until it is started again", output)?;
    }
    let answer = daemon.admin().drain(pb::DrainRequest {}).await?.into_inner();
    if !output.message("DrainResponse", &answer)? {
        output.line(&format!("draining; {} calls are on the wire", answer.in_flight))?;
    }
    Ok(Exit::Done)
}

/// Asks for a reload and waits for its answer: what `systemctl reload` runs.
pub async fn reload(daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let answer = daemon.admin().reload_config(pb::ReloadConfigRequest {}).await.map_err(|status| {
        let problems = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        if problems.is_empty() {
            return Error::from(status);
        }
        let mut e = Error::new(Exit::BadConfig, "the configuration is wrong, so nothing was changed");
        e.details = problems.into_iter().map(|problem| problem.description).collect();
        e
    })?;
    let answer = answer.into_inner();
    if !output.message("ReloadConfigResponse", &answer)? {
        answer.changes.iter().try_for_each(|change| output.line(change))?;
        output.say(if answer.changes.is_empty() { "reloaded; nothing had changed" } else { "reloaded" });
    }
    Ok(Exit::Done)
}

pub async fn events(verb: EventsVerb, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let EventsVerb::Tail { after, last, no_follow } = verb;
    let wait = if no_follow { None } else { Some(args::proto_duration(EVENTS_WAIT)) };
    let after_sequence = after.map_or(-i64::from(last), i64::from);
    let mut request = pb::ListEventsRequest { page_size: 1_000, after_sequence, wait, ..Default::default() };
    loop {
        let page = daemon.admin().list_events(request.clone()).await?.into_inner();
        for event in &page.events {
            match output.format {
                Format::Json | Format::Jsonl => output.json_line("Event", event)?,
                Format::Name => output.line(&event.sequence.to_string())?,
                Format::Table | Format::Wide => output.line(&show::one_line(&sentence(event)))?,
            }
        }
        if no_follow && !page.more {
            return Ok(Exit::Done);
        }
        request.page_token = page.next_page_token;
    }
}

/// `812 14:32:10 delivered 1,000 jobs crm/sync_user call 77 status 200`.
fn sentence(event: &pb::Event) -> String {
    let when = event.time.as_ref().map(show::clock_time).unwrap_or_default();
    let what = match &event.what {
        Some(What::Jobs(jobs)) => {
            let kind = show::word(jobs.kind().as_str_name(), "KIND_");
            let which = match jobs.job_ids.as_slice() {
                [one] => format!("job {one}"),
                _ => format!("{} jobs", show::count(jobs.job_count)),
            };
            let mut text = format!("{kind} {which} {}/{}", jobs.provider, jobs.operation);
            let more = [
                (jobs.call_id != 0).then(|| format!(" call {}", jobs.call_id)),
                (jobs.status != 0).then(|| format!(" status {}", jobs.status)),
                jobs.due_time.as_ref().map(|t| format!(" due {}", show::clock_time(t))),
                (!jobs.error.is_empty()).then(|| format!(": {}", jobs.error)),
            ];
            text.extend(more.into_iter().flatten());
            text
        }
        Some(What::Run(run)) => format!("run {} {}", run.run_id, show::run_state(run.state)),
        Some(What::Provider(p)) => {
            let by = if p.actor.is_empty() { String::new() } else { format!(" by {}", p.actor) };
            let detail = if p.detail.is_empty() { String::new() } else { format!(": {}", p.detail) };
            format!("provider {} {}{by}{detail}", p.provider, p.kind)
        }
        Some(What::Records(r)) => {
            format!("records {} changes {} to {}", r.collection, r.first_change, r.last_change)
        }
        Some(What::Pull(p)) => {
            let detail = if p.detail.is_empty() { String::new() } else { format!(": {}", p.detail) };
            format!("pull {} of {} {}{detail}", p.pull_id, p.collection, super::records::pull_state(p.state))
        }
        Some(What::Schedule(s)) => {
            let detail = if s.detail.is_empty() { String::new() } else { format!(": {}", s.detail) };
            format!("schedule {} {} by {}{detail}", s.schedule, s.kind, s.actor)
        }
        Some(What::Cache(c)) => {
            let which = if c.key.is_empty() { format!("{}*", c.prefix) } else { c.key.clone() };
            format!("cache of {}: {which} invalidated by {}", c.namespace, c.actor)
        }
        Some(What::Daemon(d)) => {
            let detail = if d.detail.is_empty() { String::new() } else { format!(": {}", d.detail) };
            format!("daemon {}{detail}", d.kind)
        }
        None => "something that this program does not know".to_owned(),
    };
    format!("{} {when} {what}", event.sequence)
}

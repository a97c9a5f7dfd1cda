//! `tidegate enqueue PROVIDER/OP`: hands one job in.
//!
//! Must never know: when it will leave. Next: `runs/create.rs` for many.

use std::time::Duration;

use super::args::{self, Priority, State, Target};
use super::connect::Daemon;
use super::exit::{Error, Exit};
use super::jobs::{self, Until};
use super::output::{Format, Output};
use super::show;
use crate::grpc::pb;

#[derive(Debug, clap::Args)]
pub struct Enqueue {
    /// What to do, as `crm/sync_user`: a provider and one of its operations.
    #[arg(value_parser = args::target, value_name = "PROVIDER/OP")]
    target: Target,
    /// The payload: a JSON text, `@file`, or `-` for stdin. Default: null.
    #[arg(short, long, value_name = "JSON")]
    data: Option<String>,
    /// Identity of the record the job is about. Jobs of one key keep their order; waiting ones coalesce where the
    /// operation says so.
    #[arg(long)]
    key: Option<String>,
    /// Credential or customer id under the provider, which limits may count by.
    #[arg(long)]
    account: Option<String>,
    /// Whose work it is, for fair turns.
    #[arg(long)]
    tenant: Option<String>,
    /// How urgent it is.
    #[arg(long, value_enum, default_value_t = Priority::Normal)]
    priority: Priority,
    /// Leave at this time at the earliest, as 2026-11-22T14:30 (local) or with a zone; at most a year ahead.
    #[arg(long, value_parser = args::time, value_name = "TIME")]
    at: Option<prost_types::Timestamp>,
    /// Leave after this time at the earliest, as 90s or 1h30m.
    #[arg(long, value_parser = args::duration, value_name = "TIME", conflicts_with = "at")]
    delay: Option<Duration>,
    /// A small text for finding the job, as team=growth. May be given up to 32 times.
    #[arg(long = "label", value_parser = args::label, value_name = "NAME=VALUE")]
    labels: Vec<(String, String)>,
    /// Handing the same in again with this key within 24 hours gives the first job, not a second one.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Id of the run that the job belongs to.
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Check everything and store nothing.
    #[arg(long)]
    dry_run: bool,
    /// Wait until the job is settled, or has reached a state: `--wait=calling`. Ends with 0 when it was delivered or got
    /// there, 6 when the time was up, 7 when it ended otherwise.
    #[arg(long, value_enum, value_name = "STATE", num_args = 0..=1, require_equals = true)]
    wait: Option<Option<State>>,
    /// How long to wait at most, as 90s, 10m or 2d.
    #[arg(long, default_value = "10m", value_parser = args::duration, value_name = "TIME")]
    timeout: Duration,
}

impl Enqueue {
    fn spec(&self) -> Result<pb::JobSpec, Error> {
        use pb::job_spec::Start;
        let start = match (self.at, self.delay) {
            (Some(at), _) => Some(Start::DueTime(at)),
            (None, Some(delay)) => Some(Start::Delay(args::proto_duration(delay))),
            (None, None) => None,
        };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Ok(pb::JobSpec {
            provider: self.target.provider.clone(),
            operation: self.target.operation.clone(),
            account: text(&self.account),
            tenant: text(&self.tenant),
            key: text(&self.key),
            payload: self.data.as_deref().map(args::payload).transpose()?.unwrap_or_default(),
            priority_class: self.priority.proto(),
            start,
            labels: self.labels.iter().cloned().collect(),
            idempotency_key: text(&self.idempotency_key),
            traceparent: String::new(),
            run_id: text(&self.run),
        })
    }

    pub async fn run(self, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
        let request =
            pb::EnqueueJobRequest { job: Some(self.spec()?), request_id: String::new(), validate_only: self.dry_run };
        let answer = daemon.jobs().enqueue_job(request).await?.into_inner();
        if let Some(state) = self.wait
            && !self.dry_run
        {
            let until = Until { state, timeout: self.timeout };
            return jobs::wait(vec![answer.job_id], until, daemon, output).await;
        }
        if output.message("EnqueueJobResponse", &answer)? {
            return Ok(Exit::Done);
        }
        let how = show::word(answer.acceptance().as_str_name(), "ACCEPTANCE_");
        match output.format {
            Format::Name => output.line(&answer.job_id)?,
            _ => output.line(format!("{how} {}", answer.job_id).trim_end())?,
        }
        Ok(Exit::Done)
    }
}

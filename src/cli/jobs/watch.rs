//! `tidegate jobs watch`: follows the log across restarts of the daemon.
//!
//! Every message carries a resume token; when the stream ends, it is taken up after the last one seen, so nothing is
//! missed and at most one group is seen twice. Must never know: what the events lead to. Next: `cli/events.rs`.

use std::time::Duration;

use tonic::Code;

use crate::cli::connect::Daemon;
use crate::cli::exit::{Error, Exit};
use crate::cli::output::{Format, Output};
use crate::cli::show;
use crate::grpc::pb;
use crate::grpc::pb::watch_jobs_response::Item;

/// Between two tries to come back.
const PAUSE: Duration = Duration::from_secs(1);
/// Tries to come back before giving up: two minutes, which a restart with 10 M jobs is well below.
const TRIES: u32 = 120;

pub async fn run(
    filter: String,
    resume: Option<String>,
    snapshot: bool,
    daemon: &Daemon,
    output: &Output,
) -> Result<Exit, Error> {
    let mut request = pb::WatchJobsRequest { filter, resume_token: resume.unwrap_or_default(), snapshot };
    let mut failures = 0;
    loop {
        let ended = follow(&mut request, &mut failures, daemon, output).await;
        match ended {
            Err(Ended::Status(status)) if status.code() == Code::Unavailable && failures < TRIES => {
                if failures == 0 {
                    output.say("the daemon went away; going on as soon as it is back");
                }
                failures += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(Ended::Status(status)) => return Err(status.into()),
            Err(Ended::Here(e)) => return Err(e),
            Ok(()) => return Ok(Exit::Done),
        }
    }
}

/// Why a stream was left.
enum Ended {
    Status(tonic::Status),
    Here(Error),
}

impl From<tonic::Status> for Ended {
    fn from(status: tonic::Status) -> Self {
        Ended::Status(status)
    }
}

impl From<Error> for Ended {
    fn from(e: Error) -> Self {
        Ended::Here(e)
    }
}

async fn follow(
    request: &mut pb::WatchJobsRequest,
    failures: &mut u32,
    daemon: &Daemon,
    output: &Output,
) -> Result<(), Ended> {
    let mut stream = daemon.jobs().watch_jobs(request.clone()).await?.into_inner();
    while let Some(message) = stream.message().await? {
        *failures = 0;
        if !message.resume_token.is_empty() {
            request.resume_token.clone_from(&message.resume_token);
            request.snapshot = false;
        }
        show(&message, output)?;
    }
    Ok(())
}

fn show(message: &pb::WatchJobsResponse, output: &Output) -> Result<(), Error> {
    if matches!(output.format, Format::Json | Format::Jsonl) {
        return output.json_line("WatchJobsResponse", message);
    }
    let (job, line) = match &message.item {
        Some(Item::Snapshot(job)) => (Some(job), format!("{:12} {}", show::job_state(job.state), target(job))),
        Some(Item::Event(event)) => {
            let kind = show::word(event.kind().as_str_name(), "KIND_");
            let when = event.time.as_ref().map(show::clock_time).unwrap_or_default();
            let job = event.job.as_ref();
            let mut line = format!("{when} {kind:12} {}", job.map(target).unwrap_or_default());
            if event.status != 0 {
                line.push_str(&format!(" status {}", event.status));
            }
            if let Some(progress) = job.and_then(|job| job.progress.as_ref()) {
                line.push_str(&format!(" {}", show::progress(progress)));
            }
            if !event.error.is_empty() {
                line.push_str(&format!(" {}", event.error));
            }
            (job, line)
        }
        Some(Item::Bookmark(_)) | None => return Ok(()),
    };
    match (output.format, job) {
        (Format::Name, Some(job)) => output.line(&job.id),
        _ => output.line(&show::one_line(&line)),
    }
}

fn target(job: &pb::Job) -> String {
    let key = if job.key.is_empty() { String::new() } else { format!(" key {}", job.key) };
    format!("{} {}/{}{key}", job.id, job.provider, job.operation)
}

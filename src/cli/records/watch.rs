//! `tidegate records watch`: follows a collection across restarts of the daemon.
//!
//! Every message carries a resume token; when the stream ends, it is taken up after the last one seen. Must never know:
//! what the changes lead to.

use std::time::Duration;

use tonic::Code;

use super::super::connect::Daemon;
use super::super::exit::{Error, Exit};
use super::super::output::{Format, Output};
use super::super::show;
use crate::grpc::pb;
use crate::grpc::pb::watch_records_response::Item;

/// Between two tries to come back.
const PAUSE: Duration = Duration::from_secs(1);
/// Tries to come back before giving up.
const TRIES: u32 = 120;

pub async fn run(
    collection: String,
    resume: Option<String>,
    snapshot: bool,
    daemon: &Daemon,
    output: &Output,
) -> Result<Exit, Error> {
    let mut request = pb::WatchRecordsRequest { collection, resume_token: resume.unwrap_or_default(), snapshot };
    let mut failures = 0;
    loop {
        let status = match daemon.records().watch_records(request.clone()).await {
            Err(status) => status,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(message)) => {
                            failures = 0;
                            request.resume_token.clone_from(&message.resume_token);
                            show(&message, output)?;
                        }
                        Ok(None) => return Ok(Exit::Done),
                        Err(status) => break status,
                    }
                }
            }
        };
        if status.code() != Code::Unavailable || failures >= TRIES {
            return Err(status.into());
        }
        if failures == 0 {
            output.say("the daemon went away; going on as soon as it is back");
        }
        failures += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

fn show(message: &pb::WatchRecordsResponse, output: &Output) -> Result<(), Error> {
    if matches!(output.format, Format::Json | Format::Jsonl) {
        return output.json_line("WatchRecordsResponse", message);
    }
    let Some(Item::Record(record)) = &message.item else { return Ok(()) };
    if output.format == Format::Name {
        return output.line(&record.id);
    }
    let what = if record.deleted { "deleted".to_owned() } else { record.data.clone() };
    output.line(&show::one_line(&format!("{} {} version {} {what}", record.change, record.id, record.version)))
}

//! `tidegate runs create`: feeds a file of jobs to the daemon as one run.
//!
//! Lines travel in messages of [`CHUNK`] jobs; each is answered once its jobs are durable, and at most [`AHEAD`] are
//! on their way, so memory stays bounded whatever the file's size. Must never know: how a run is stored.
//! Next: `progress.rs`.

use std::io::{BufRead, BufReader};

use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::progress::{self, Meter};
use crate::cli::args::{self, Target};
use crate::cli::connect::Daemon;
use crate::cli::exit::{Error, Exit};
use crate::cli::output::{Format, Output};
use crate::cli::show;
use crate::grpc::{json, pb};

/// Jobs in one message: large enough that a commit's cost is spread, small enough that progress is seen.
const CHUNK: usize = 500;
/// Messages that wait to be taken by the transport.
const AHEAD: usize = 4;
/// Refused lines that are told one by one.
const TOLD_MAX: usize = 20;

#[derive(Debug, clap::Args)]
pub struct Create {
    /// File of jobs, one JSON object per line; `-` is stdin.
    #[arg(default_value = "-", value_name = "FILE")]
    file: String,
    /// For lines that name no provider and operation, as crm/sync_user.
    #[arg(long, value_parser = args::target, value_name = "PROVIDER/OP")]
    target: Option<Target>,
    /// Name of the run, for people.
    #[arg(long, default_value = "")]
    name: String,
    /// Whose work it is, for fair turns.
    #[arg(long, default_value = "")]
    tenant: String,
    /// A small text for finding the run, as team=growth. May be given up to 32 times.
    #[arg(long = "label", value_parser = args::label, value_name = "NAME=VALUE")]
    labels: Vec<(String, String)>,
    /// Leave the run open for more jobs. Default: it is sealed with the last line.
    #[arg(long)]
    keep_open: bool,
    /// Show the run's progress until it has ended. Ends with 7 when jobs of it ended dead or cancelled.
    #[arg(long, conflicts_with = "keep_open")]
    wait: bool,
}

impl Create {
    pub async fn run(self, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
        let request = pb::CreateRunRequest {
            display_name: self.name.clone(),
            tenant: self.tenant.clone(),
            labels: self.labels.iter().cloned().collect(),
            request_id: String::new(),
        };
        let source = open(&self.file)?;
        let run = daemon.runs().create_run(request).await?.into_inner().run.unwrap_or_default();
        let fed = self.feed(&run.id, source, daemon, output).await?;
        // The id is the data: scripts go on with it.
        match output.format {
            Format::Table | Format::Wide | Format::Name => output.line(&run.id)?,
            _ => {
                let run = daemon.runs().get_run(pb::GetRunRequest { run_id: run.id.clone() }).await?.into_inner().run;
                output.message("Run", &run.unwrap_or_default())?;
            }
        }
        let ended = if self.wait { progress::watch(&run.id, daemon, output).await? } else { Exit::Done };
        match fed.refused {
            0 => Ok(ended),
            n => Err(Error::failed(format!(
                "{} of {} lines were refused; the others are in run {}",
                n, fed.lines, run.id
            ))),
        }
    }

    async fn feed(&self, id: &str, source: Source, daemon: &Daemon, output: &Output) -> Result<Fed, Error> {
        let (to, messages) = mpsc::channel(AHEAD);
        let (id, target, seal) = (id.to_owned(), self.target.clone(), !self.keep_open);
        // Reading blocks, so it has a thread of its own; it ends when the file does or when the receiver is dropped.
        let reader = tokio::task::spawn_blocking(move || Reader { source, target }.send(&id, seal, &to));
        let mut meter = Meter::new("feed", output);
        let mut fed = Fed::default();
        let mut answers = daemon.runs().add_run_jobs(ReceiverStream::new(messages)).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            fed.take(&answer);
            let accepted = fed.accepted;
            let note = || format!("{} jobs are durable", show::count(accepted as i64));
            meter.tell(accepted, fed.lines, "durable", note);
        }
        let unread = reader.await.map_err(|e| Error::failed(format!("the file could not be read: {e}")))??;
        fed.lines += unread.refused;
        fed.refused += unread.refused;
        meter.end(&format!("{} jobs are durable", show::count(fed.accepted as i64)));
        for (line, why) in fed.told.iter().chain(&unread.told).take(TOLD_MAX) {
            output.say(&format!("line {line}: {why}"));
        }
        Ok(fed)
    }
}

/// What became of the lines.
#[derive(Debug, Default)]
struct Fed {
    lines: u64,
    accepted: u64,
    refused: u64,
    told: Vec<(u64, String)>,
}

impl Fed {
    /// The sequence of a message is the number of its first line.
    fn take(&mut self, answer: &pb::AddRunJobsResponse) {
        self.lines += answer.results.len() as u64;
        self.accepted += u64::try_from(answer.accepted_count).unwrap_or(0);
        for (at, result) in answer.results.iter().enumerate() {
            if let Some(pb::enqueue_result::Result::Error(e)) = &result.result {
                self.refuse(answer.sequence as u64 + at as u64, e.message.clone());
            }
        }
    }

    fn refuse(&mut self, line: u64, why: String) {
        self.refused += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push((line, why));
        }
    }
}

type Source = Box<dyn BufRead + Send>;

fn open(path: &str) -> Result<Source, Error> {
    match path {
        "-" => Ok(Box::new(BufReader::new(std::io::stdin()))),
        path => {
            let file = std::fs::File::open(path).map_err(|e| Error::usage(format!("{path} cannot be read: {e}")))?;
            Ok(Box::new(BufReader::new(file)))
        }
    }
}

/// Turns lines into messages. Jobs of one message stand in consecutive lines, so that its sequence number (the first
/// line's) tells every job's line.
struct Reader {
    source: Source,
    target: Option<Target>,
}

impl Reader {
    /// Returns the lines that are no jobs. Ends early when nobody takes messages any more.
    fn send(mut self, run: &str, seal: bool, to: &mpsc::Sender<pb::AddRunJobsRequest>) -> Result<Fed, Error> {
        let (mut unread, mut jobs, mut text) = (Fed::default(), Vec::new(), String::new());
        let (mut line, mut first) = (0u64, 1u64);
        let message = |sequence: u64, jobs: &mut Vec<pb::JobSpec>, seal: bool| pb::AddRunJobsRequest {
            run_id: run.to_owned(),
            sequence: sequence as i64,
            jobs: std::mem::take(jobs),
            seal,
        };
        loop {
            text.clear();
            if self.source.read_line(&mut text)? == 0 {
                break;
            }
            line += 1;
            let spec = match text.trim() {
                "" => None,
                text => parse(text, self.target.as_ref()).map_err(|why| unread.refuse(line, why)).ok(),
            };
            let gap = spec.is_none();
            jobs.extend(spec);
            if jobs.len() >= CHUNK || (gap && !jobs.is_empty()) {
                if to.blocking_send(message(first, &mut jobs, false)).is_err() {
                    return Ok(unread);
                }
                first = line + 1;
            } else if gap {
                first = line + 1;
            }
        }
        // Nobody there any more: the answer stream tells why.
        let _ = to.blocking_send(message(first, &mut jobs, seal));
        Ok(unread)
    }
}

/// One line: a JobSpec whose payload may be any JSON value.
fn parse(text: &str, target: Option<&Target>) -> Result<pb::JobSpec, String> {
    let fields: std::collections::BTreeMap<&str, &RawValue> =
        serde_json::from_str(text).map_err(|e| format!("expected a JSON object, got {:?}: {e}", args::head(text)))?;
    let mut parts = Vec::with_capacity(fields.len());
    for (name, value) in &fields {
        // A payload that is no text is quoted, byte for byte: the proto has it as the text of a document.
        let quoted = *name == "payload" && !value.get().starts_with('"');
        let value = if quoted { serde_json::Value::from(value.get()).to_string() } else { value.get().to_owned() };
        parts.push(format!("{}:{value}", serde_json::Value::from(*name)));
    }
    let mut spec: pb::JobSpec =
        json::from_json("JobSpec", &format!("{{{}}}", parts.join(","))).map_err(|e| e.to_string())?;
    if let (Some(target), true) = (target, spec.provider.is_empty() && spec.operation.is_empty()) {
        spec.provider.clone_from(&target.provider);
        spec.operation.clone_from(&target.operation);
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> (Vec<pb::AddRunJobsRequest>, Fed) {
        let (to, mut from) = mpsc::channel(100);
        let reader = Reader { source: Box::new(text.as_bytes()), target: args::target("crm/sync").ok() };
        let unread = reader.send("run-1", true, &to).unwrap();
        drop(to);
        (std::iter::from_fn(|| from.try_recv().ok()).collect(), unread)
    }

    #[test]
    fn a_payload_travels_byte_for_byte_whatever_json_it_is() {
        let object = parse(r#"{"key":"u1","payload":{"b": 1,  "a":[1.0]}}"#, None).unwrap();
        assert_eq!(object.payload, r#"{"b": 1,  "a":[1.0]}"#);
        let text = parse(r#"{"payload":"{\"a\":1}"}"#, None).unwrap();
        assert_eq!(text.payload, r#"{"a":1}"#);
        assert_eq!(parse(r#"{"payload":null}"#, None).unwrap().payload, "null");
    }

    #[test]
    fn every_job_can_be_told_by_its_line() {
        let (messages, unread) =
            read("{\"key\":\"a\"}\n\n{\"key\":\"b\"}\nnonsense\n{\"key\":\"c\"}\n{\"key\":\"d\"}\n");
        let seen: Vec<(i64, usize)> = messages.iter().map(|m| (m.sequence, m.jobs.len())).collect();
        assert_eq!(seen, [(1, 1), (3, 1), (5, 2)]);
        assert_eq!((unread.refused, unread.told[0].0), (1, 4));
        assert_eq!(messages.iter().map(|m| m.seal).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(messages[2].jobs[1].operation, "sync");
    }

    #[test]
    fn an_empty_file_still_seals_its_run() {
        let (messages, _) = read("");
        assert_eq!(messages.len(), 1);
        assert!(messages[0].seal && messages[0].jobs.is_empty() && messages[0].sequence > 0);
    }
}

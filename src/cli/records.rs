//! `tidegate records`: JSON records of collections, and the pulls and pushes behind them.
//!
//! Must never know: how records are stored. Next: `records/watch.rs`.

use std::time::Duration;

use clap::Subcommand;

use super::args;
use super::connect::Daemon;
use super::exit::{Error, Exit};
use super::output::{Format, Output};
use super::show::{self, Rows, Times};
use crate::grpc::pb;

mod pull;
mod watch;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Put one record: a JSON object under its external id. A watched change is pushed.
    ///
    /// Example: `tidegate records put users u7 -d '{"name":"Ada"}'`
    Put {
        /// Name of the collection.
        collection: String,
        /// External id.
        id: String,
        /// The document: a JSON text, `@file`, or `-` for stdin.
        #[arg(short, long, value_name = "JSON")]
        data: String,
        /// The version that the record must have now; 0: there must be none.
        #[arg(long, value_name = "VERSION")]
        expect: Option<i64>,
        /// Only check it.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show one record.
    ///
    /// Example: `tidegate records get users u7 -o json`
    Get {
        /// Name of the collection.
        collection: String,
        /// External id.
        id: String,
    },
    /// List records in the order of their ids.
    ///
    /// Example: `tidegate records list orders --filter 'status = "open"'`
    List {
        /// Name of the collection.
        collection: String,
        /// `FIELD = VALUE AND ...` over exactly the fields of a declared index.
        #[arg(long, default_value = "", value_name = "FILTER")]
        filter: String,
        /// How many at most.
        #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
    /// Delete one record.
    ///
    /// Example: `tidegate records delete users u7`
    Delete {
        /// Name of the collection.
        collection: String,
        /// External id.
        id: String,
        /// The version that the record must have now.
        #[arg(long, value_name = "VERSION")]
        expect: Option<i64>,
    },
    /// Send a record as it stands. However often this is asked, one job sends one version, while it is kept. Refused when
    /// that job is dead, unknown or cancelled.
    ///
    /// Example: `tidegate records push orders o12`
    Push {
        /// Name of the collection.
        collection: String,
        /// External id.
        id: String,
    },
    /// Show the sums of a declared aggregate, largest first.
    ///
    /// Example: `tidegate records aggregate orders by_status --window 30d`
    Aggregate {
        /// Name of the collection.
        collection: String,
        /// Name of the aggregate.
        aggregate: String,
        /// Only this long before now, in whole buckets of time, as 30d or 12h.
        #[arg(long, value_parser = args::duration, value_name = "TIME")]
        window: Option<Duration>,
        /// How many groups at most.
        #[arg(long, default_value_t = 100, value_name = "N")]
        top: i32,
    },
    /// Show changes of a collection as they are committed.
    ///
    /// Example: `tidegate records watch users --snapshot`
    Watch {
        /// Name of the collection.
        collection: String,
        /// Go on behind the message that carried this.
        #[arg(long, value_name = "TOKEN")]
        resume: Option<String>,
        /// All records first.
        #[arg(long)]
        snapshot: bool,
    },
    /// Fetch a collection from its provider, or find the pull that is running.
    ///
    /// Example: `tidegate records pull users --wait`
    Pull(pull::Pull),
    /// List the declared collections with their newest pulls.
    ///
    /// Example: `tidegate records collections`
    Collections,
}

pub async fn run(verb: Verb, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let mut records = daemon.records();
    match verb {
        Verb::Put { collection, id, data, expect, dry_run } => {
            let data = args::payload(&data)?;
            let request =
                pb::PutRecordRequest { collection, id, data, expected_version: expect, validate_only: dry_run };
            let answer = records.put_record(request).await?.into_inner();
            if output.message("PutRecordResponse", &answer)? {
                return Ok(Exit::Done);
            }
            let Some(record) = answer.record else {
                output.line("valid")?;
                return Ok(Exit::Done);
            };
            let how = if answer.changed { "changed" } else { "unchanged" };
            let pushed = if answer.push_job_id.is_empty() { String::new() } else { format!(" {}", answer.push_job_id) };
            match output.format {
                Format::Name => output.line(&record.id)?,
                _ => output.line(&format!("{how} {} version {}{pushed}", record.id, record.version))?,
            }
        }
        Verb::Get { collection, id } => {
            let answer = records.get_record(pb::GetRecordRequest { collection, id }).await?.into_inner();
            output.list(("Record", "records"), answer.record.as_slice(), |record| record.id.clone(), table)?;
        }
        Verb::List { collection, filter, limit } => list(collection, filter, limit, daemon, output).await?,
        Verb::Delete { collection, id, expect } => {
            let request = pb::DeleteRecordRequest { collection, id, expected_version: expect };
            let answer = records.delete_record(request).await?.into_inner();
            if !output.message("DeleteRecordResponse", &answer)? {
                output.line(format!("deleted {}", answer.push_job_id).trim_end())?;
            }
        }
        Verb::Push { collection, id } => {
            let answer = records.push_record(pb::PushRecordRequest { collection, id }).await?.into_inner();
            if !output.message("PushRecordResponse", &answer)? {
                output.line(&answer.job_id)?;
            }
        }
        Verb::Aggregate { collection, aggregate, window, top } => {
            let window = window.map(args::proto_duration);
            let request = pb::AggregateRecordsRequest { collection, aggregate, window, top, ..Default::default() };
            let answer = records.aggregate_records(request).await?.into_inner();
            if !output.message("AggregateRecordsResponse", &answer)? {
                output.line(&groups(&answer).text())?;
            }
        }
        Verb::Watch { collection, resume, snapshot } => {
            return watch::run(collection, resume, snapshot, daemon, output).await;
        }
        Verb::Pull(pull) => return pull.run(daemon, output).await,
        Verb::Collections => {
            let answer = records.list_collections(pb::ListCollectionsRequest {}).await?.into_inner();
            output.list(("Collection", "collections"), &answer.collections, |c| c.name.clone(), collections)?;
        }
    }
    Ok(Exit::Done)
}

async fn list(collection: String, filter: String, limit: usize, daemon: &Daemon, output: &Output) -> Result<(), Error> {
    let mut found = Vec::new();
    let mut request = pb::ListRecordsRequest { collection, filter, ..Default::default() };
    while found.len() < limit {
        request.page_size = i32::try_from((limit - found.len()).min(1_000)).unwrap_or(1_000);
        let page = daemon.records().list_records(request.clone()).await?.into_inner();
        found.extend(page.records);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    output.list(("Record", "records"), &found, |record| record.id.clone(), table)?;
    if output.format == Format::Table && !request.page_token.is_empty() {
        output.say(&format!("there are more; --limit {limit} was reached"));
    }
    Ok(())
}

/// Characters of a document in a table.
const DATA_SHOWN: usize = 80;

fn table(records: &[pb::Record], wide: bool) -> Rows {
    let times = Times::new(wide);
    let mut header = vec!["ID", "VERSION", "AGE", "DATA"];
    if wide {
        header.extend(["CHANGE", "HASH", "CREATED"]);
    }
    let mut rows = Rows::new(&header);
    for record in records {
        let mut data: String = record.data.chars().take(DATA_SHOWN).collect();
        if data.len() < record.data.len() {
            data.push_str("...");
        }
        let mut cells =
            vec![record.id.clone(), record.version.to_string(), times.show(record.update_time.as_ref()), data];
        if wide {
            let created = times.show(record.create_time.as_ref());
            cells.extend([record.change.to_string(), record.content_hash.clone(), created]);
        }
        rows.add(cells);
    }
    rows
}

fn groups(answer: &pb::AggregateRecordsResponse) -> Rows {
    let mut header: Vec<String> = answer.group_by.iter().map(|name| name.to_uppercase()).collect();
    header.push("COUNT".to_owned());
    for measure in answer.groups.first().map(|group| &group.measures[..]).unwrap_or_default() {
        let name = measure.name.to_uppercase();
        header.extend([format!("SUM {name}"), format!("MIN {name}"), format!("MAX {name}")]);
    }
    let mut rows = Rows::new(&header.iter().map(String::as_str).collect::<Vec<_>>());
    for group in &answer.groups {
        let fields: Vec<serde_json::Value> = serde_json::from_str(&group.group).unwrap_or_default();
        let plain = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut cells: Vec<String> = fields.iter().map(plain).collect();
        cells.push(show::count(group.count));
        cells.extend(group.measures.iter().flat_map(|m| [m.sum.clone(), m.min.clone(), m.max.clone()]));
        rows.add(cells);
    }
    rows
}

fn collections(all: &[pb::Collection], wide: bool) -> Rows {
    let times = Times::new(wide);
    let mut header = vec!["NAME", "RECORDS", "CHANGES", "PULL", "PULLED", "PULLS FROM", "PUSHES TO"];
    if wide {
        header.extend(["INDEXES", "AGGREGATES"]);
    }
    let mut rows = Rows::new(&header);
    for collection in all {
        let pull = collection.pull.as_ref();
        let mut cells = vec![
            collection.name.clone(),
            show::count(collection.record_count),
            show::count(collection.last_change),
            pull.map(|pull| pull_state(pull.state)).unwrap_or_default(),
            times.show(pull.and_then(|pull| pull.finish_time.as_ref())),
            collection.pull_operation.clone(),
            collection.push_operation.clone(),
        ];
        if wide {
            cells.extend([collection.indexes.join(" "), collection.aggregates.join(" ")]);
        }
        rows.add(cells);
    }
    rows
}

pub fn pull_state(value: i32) -> String {
    pb::PullState::try_from(value).map_or_else(|_| value.to_string(), |v| show::word(v.as_str_name(), "PULL_STATE_"))
}

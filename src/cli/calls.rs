//! `tidegate calls`: the call log, for people and for export.
//!
//! Must never know: how calls are kept. Next: `jobs.rs`, which shows the calls of one job.

use clap::Subcommand;

use super::again::Again;
use super::connect::Daemon;
use super::exit::{Error, Exit};
use super::output::{Format, Output};
use super::show::{self, Rows, Times};
use crate::grpc::pb;

/// Calls per request when the log is read page by page: as many as a page may have, without bodies and with them.
const PAGE: i32 = 1_000;
const FULL_PAGE: i32 = 100;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List calls, newest first.
    ///
    /// Example: `tidegate calls list --filter 'provider = "crm" AND status >= 500'`
    List {
        /// Which ones, as `ending = LOST AND latency_ms > 2000`: provider, operation, account, lane, ending, status,
        /// latency_ms, begin_time, end_time.
        #[arg(long, default_value = "", hide_default_value = true)]
        filter: String,
        /// How many at most.
        #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
        limit: usize,
        #[command(flatten)]
        again: Again,
    },
    /// Show one call, with its bodies where the operation keeps them.
    ///
    /// Example: `tidegate calls get 77`
    Get {
        /// Number of the call.
        id: i64,
    },
    /// Write all calls to stdout, newest first, one JSON document per line.
    ///
    /// Example: `tidegate calls export --filter 'begin_time > "2026-11-01T00:00:00Z"' > calls.jsonl`
    Export {
        /// Which ones, as in `tidegate calls list`.
        #[arg(long, default_value = "", hide_default_value = true)]
        filter: String,
        /// With bodies, where they are kept.
        #[arg(long)]
        bodies: bool,
    },
}

pub async fn run(verb: Verb, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    match verb {
        Verb::List { filter, limit, again } => {
            again.show(output, async || list(filter.clone(), limit, daemon, output).await).await
        }
        Verb::Get { id } => get(id, daemon, output).await,
        Verb::Export { filter, bodies } => export(filter, bodies, daemon, output).await,
    }
}

async fn list(filter: String, limit: usize, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let mut request = pb::ListCallsRequest { filter, ..Default::default() };
    let mut found = Vec::new();
    while found.len() < limit {
        request.page_size = i32::try_from(limit - found.len()).unwrap_or(PAGE).min(PAGE);
        let page = daemon.admin().list_calls(request.clone()).await?.into_inner();
        found.extend(page.calls);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    output.list(("Call", "calls"), &found, |call| call.id.to_string(), table)?;
    Ok(Exit::Done)
}

async fn export(filter: String, bodies: bool, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let view = if bodies { pb::View::Full } else { pb::View::Basic } as i32;
    let page_size = if bodies { FULL_PAGE } else { PAGE };
    let mut request = pb::ListCallsRequest { filter, page_size, view, ..Default::default() };
    loop {
        let page = daemon.admin().list_calls(request.clone()).await?.into_inner();
        for call in &page.calls {
            output.json_line("Call", call)?;
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(Exit::Done);
        }
    }
}

async fn get(call_id: i64, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let answer = daemon.admin().get_call(pb::GetCallRequest { call_id }).await?.into_inner();
    let call = answer.call.unwrap_or_default();
    if output.message("Call", &call)? {
        return Ok(Exit::Done);
    }
    let times = Times::new(output.format == Format::Wide);
    output.line(&show::facts(&[
        ("call", call.id.to_string()),
        ("target", target(&call)),
        ("account", call.account.clone()),
        ("lane", show::lane(call.lane)),
        ("jobs", call.job_count.to_string()),
        ("permits outside", some(call.outside_permits)),
        ("began", times.show(call.begin_time.as_ref())),
        ("ended", times.show(call.end_time.as_ref())),
        ("latency", latency(&call)),
        ("ending", ending(&call)),
        ("status", some(call.status)),
        ("error", call.error.clone()),
    ]))?;
    for header in &call.limit_headers {
        output.line(&show::one_line(&format!("{}: {}", header.name, header.value)))?;
    }
    for (what, body) in [("request", &call.request_body), ("answer", &call.answer_body)] {
        if let Some(body) = body {
            let cut = if body.truncated { ", not all of it" } else { "" };
            output.line(&format!(
                "\n{what}, {} bytes{cut}\n{}",
                show::count(body.size_bytes),
                show::one_line(&body.text)
            ))?;
        }
    }
    Ok(Exit::Done)
}

/// Calls as rows; also those of one job.
pub fn table(calls: &[pb::Call], wide: bool) -> Rows {
    let times = Times::new(wide);
    let mut header = vec!["CALL", "TARGET", "LANE", "JOBS", "BEGAN", "LATENCY", "ENDING", "STATUS", "LIMITS", "ERROR"];
    if wide {
        header.extend(["ACCOUNT", "ENDED"]);
    }
    let mut rows = Rows::new(&header);
    for call in calls {
        let said = call.limit_headers.iter().map(|header| format!("{}={}", header.name, header.value));
        let said: Vec<String> = said.collect();
        let mut cells = vec![
            call.id.to_string(),
            target(call),
            show::lane(call.lane),
            call.job_count.to_string(),
            times.show(call.begin_time.as_ref()),
            latency(call),
            ending(call),
            some(call.status),
            said.join(" "),
            call.error.clone(),
        ];
        if wide {
            cells.extend([call.account.clone(), times.show(call.end_time.as_ref())]);
        }
        rows.add(cells);
    }
    rows
}

fn target(call: &pb::Call) -> String {
    format!("{}/{}", call.provider, call.operation)
}

fn ending(call: &pb::Call) -> String {
    show::word(call.ending().as_str_name(), "ENDING_")
}

fn some(n: i32) -> String {
    if n == 0 { String::new() } else { n.to_string() }
}

fn latency(call: &pb::Call) -> String {
    let Some(took) = &call.latency else { return String::new() };
    format!("{:.0}ms", took.seconds as f64 * 1e3 + f64::from(took.nanos) / 1e6)
}

//! `tidegate providers`: declare them, see how they stand, hold them back, try them.
//!
//! Must never know: what a declaration may say. Next: `limits.rs`.

use clap::Subcommand;

use super::again::Again;
use super::args;
use super::connect::Daemon;
use super::exit::{Error, Exit};
use super::output::{Format, Output};
use super::show::{self, Rows, Times};
use crate::grpc::pb;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List providers by name.
    ///
    /// Example: `tidegate providers list -o wide`
    List {
        #[command(flatten)]
        again: Again,
    },
    /// Show the declaration of a provider, as it is in force.
    ///
    /// Example: `tidegate providers get crm > providers.d/crm.toml`
    Get {
        /// Name of the provider.
        name: String,
    },
    /// Put declarations in force. All problems of a file are told at once, with line and column.
    ///
    /// Example: `tidegate providers apply providers.d/crm.toml --dry-run`
    Apply {
        /// TOML files that declare one provider each; `-` is stdin.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<String>,
        /// Check everything and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Replace only the declaration with this etag; `none` demands that there is none yet.
        #[arg(long)]
        etag: Option<String>,
    },
    /// Take a declaration out of force. Refused while jobs of it have work left.
    ///
    /// Example: `tidegate providers delete crm`
    Delete {
        /// Name of the provider.
        name: String,
        /// Delete it although jobs of it have work left; they wait until it is declared again.
        #[arg(long)]
        force: bool,
    },
    /// Hold all jobs of a provider back. Calls on the wire end as they would.
    ///
    /// Example: `tidegate providers pause crm`
    Pause {
        /// Name of the provider.
        name: String,
    },
    /// Let the jobs of a paused provider go again.
    ///
    /// Example: `tidegate providers resume crm`
    Resume {
        /// Name of the provider.
        name: String,
    },
    /// Show limits, lanes, breaker, backlog and forecast of a provider, as they stand now.
    ///
    /// Example: `tidegate providers status crm --watch`
    Status {
        /// Name of the provider.
        name: String,
        /// Show it again every second, until interrupted.
        #[arg(short, long)]
        watch: bool,
    },
    /// Make one real GET call, with the provider's credentials and within its limits, and tell what came back, with the
    /// headers that speak of limits. Ends with 0 when the status was 2xx, else with 1.
    ///
    /// Example: `tidegate providers test crm /ping`
    Test {
        /// Name of the provider.
        name: String,
        /// Path below the base URL, with a query if need be.
        #[arg(default_value = "")]
        path: String,
    },
}

pub async fn run(verb: Verb, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let mut providers = daemon.providers();
    let changed: Option<Vec<pb::Provider>> = match verb {
        Verb::List { again } => {
            let look = async || {
                output.list(("Provider", "providers"), &all(daemon).await?, |p| p.name.clone(), table)?;
                Ok(Exit::Done)
            };
            return again.show(output, look).await;
        }
        Verb::Get { name } => return get(name, daemon, output).await,
        Verb::Apply { files, dry_run, etag } => return apply(files, dry_run, etag, daemon, output).await,
        Verb::Delete { name, force } => {
            providers.delete_provider(pb::DeleteProviderRequest { name: name.clone(), force }).await?;
            output.say(&format!("{name} is no longer declared"));
            None
        }
        Verb::Pause { name } => {
            let answer = providers.pause_provider(pb::PauseProviderRequest { name }).await?.into_inner();
            Some(answer.provider.into_iter().collect())
        }
        Verb::Resume { name } => {
            let answer = providers.resume_provider(pb::ResumeProviderRequest { name }).await?.into_inner();
            Some(answer.provider.into_iter().collect())
        }
        Verb::Status { name, watch } => return status(name, watch, daemon, output).await,
        Verb::Test { name, path } => return test(name, path, daemon, output).await,
    };
    if let Some(shown) = changed {
        output.list(("Provider", "providers"), &shown, |p| p.name.clone(), table)?;
    }
    Ok(Exit::Done)
}

/// All providers by name.
pub async fn all(daemon: &Daemon) -> Result<Vec<pb::Provider>, Error> {
    let mut found = Vec::new();
    let mut request = pb::ListProvidersRequest { page_size: 1_000, ..Default::default() };
    loop {
        let page = daemon.providers().list_providers(request.clone()).await?.into_inner();
        found.extend(page.providers);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

/// How one provider stands.
pub async fn status_of(name: &str, daemon: &Daemon) -> Result<pb::ProviderStatus, Error> {
    let request = pb::GetProviderStatusRequest { name: name.to_owned() };
    let answer = daemon.providers().get_provider_status(request).await?.into_inner();
    answer.status.ok_or_else(|| Error::failed("the daemon answered without a status"))
}

fn table(providers: &[pb::Provider], wide: bool) -> Rows {
    let times = Times::new(wide);
    let mut header = vec!["NAME", "BASE URL", "OPERATIONS", "LIMITS", "REVISION", "PAUSED"];
    if wide {
        header.extend(["APPLIED", "BY", "ETAG"]);
    }
    let mut rows = Rows::new(&header);
    for p in providers {
        let operations: Vec<&str> = p.operations.iter().map(|o| o.name.as_str()).collect();
        let limits: Vec<&str> = p.limits.iter().map(|l| l.declared.as_str()).collect();
        let mut cells = vec![
            p.name.clone(),
            p.base_url.clone(),
            operations.join(" "),
            limits.join(" "),
            p.revision.to_string(),
            if p.paused { "yes".to_owned() } else { String::new() },
        ];
        if wide {
            cells.extend([times.show(p.apply_time.as_ref()), p.actor.clone(), p.etag.clone()]);
        }
        rows.add(cells);
    }
    rows
}

async fn get(name: String, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let request = pb::GetProviderRequest { name, view: pb::View::Full as i32 };
    let provider = daemon.providers().get_provider(request).await?.into_inner().provider.unwrap_or_default();
    if !output.message("Provider", &provider)? {
        match output.format {
            Format::Name => output.line(&provider.name)?,
            _ => output.raw(provider.source.as_bytes())?,
        }
    }
    Ok(Exit::Done)
}

async fn apply(
    files: Vec<String>,
    validate_only: bool,
    etag: Option<String>,
    daemon: &Daemon,
    output: &Output,
) -> Result<Exit, Error> {
    let mut applied = Vec::new();
    for file in files {
        let source = args::text_of(&file)?;
        let request = pb::ApplyProviderRequest { source, validate_only, etag: etag.clone().unwrap_or_default() };
        let answer = daemon.providers().apply_provider(request).await.map_err(|status| {
            let mut e = Error::from(status);
            e.message = format!("{file}: {}", e.message);
            e
        })?;
        applied.extend(answer.into_inner().provider);
    }
    if validate_only {
        output.say("nothing was changed: this is what would be in force");
    }
    output.list(("Provider", "providers"), &applied, |p| p.name.clone(), table)?;
    Ok(Exit::Done)
}

async fn status(name: String, watch: bool, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    if !watch {
        let status = status_of(&name, daemon).await?;
        if !output.message("ProviderStatus", &status)? {
            output.line(&shown(&status))?;
        }
        return Ok(Exit::Done);
    }
    let request = pb::WatchProviderStatusRequest { name, interval: None };
    let mut stream = daemon.providers().watch_provider_status(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        let Some(status) = message.status else { continue };
        match output.format {
            Format::Json | Format::Jsonl => output.json_line("ProviderStatus", &status)?,
            // Home and clear to the end: the screen does not flicker, and scrollback stays as it was.
            _ if output.color => output.raw(format!("\x1b[H\x1b[J{}\n", shown(&status)).as_bytes())?,
            _ => output.line(&sentence(&status))?,
        }
    }
    Ok(Exit::Done)
}

fn shown(status: &pb::ProviderStatus) -> String {
    let mut text = sentence(status);
    let mut lanes = Rows::new(&["OPERATION", "LANE", "READY", "LATER", "BEHIND", "IN FLIGHT", "CALLS", "JOBS"]);
    for operation in &status.operations {
        let counts = operation.counts.unwrap_or_default();
        for lane in &operation.lanes {
            lanes.add([
                operation.name.clone(),
                show::lane(lane.lane),
                show::count(counts.ready),
                show::count(counts.later),
                show::count(counts.behind),
                lane.in_flight.to_string(),
                show::count(lane.call_count),
                show::count(lane.job_count),
            ]);
        }
    }
    text.push_str(&format!(
        "\n\n{}\n\n{}",
        super::limits::table(std::slice::from_ref(status), false).text(),
        lanes.text()
    ));
    text
}

/// `crm: 1,204 waiting · sending 1.38/s of 1.39/s allowed · drains at 14:32:10 · bound by core`.
pub fn sentence(status: &pb::ProviderStatus) -> String {
    let counts = status.counts.unwrap_or_default();
    let mut parts = vec![format!("{} waiting", show::count(counts.waiting))];
    let allowed = status.allowed_per_second.map(|a| format!(" of {a:.2}/s allowed")).unwrap_or_default();
    parts.push(format!("sending {:.2}/s{allowed}", status.sending_per_second));
    if let Some(time) = &status.drain_time {
        parts.push(format!("drains at {}", show::clock_time(time)));
    }
    if !status.bound_by.is_empty() {
        parts.push(format!("bound by {}", status.bound_by));
    }
    if counts.unknown > 0 {
        parts.push(format!("{} unknown", show::count(counts.unknown)));
    }
    if let Some(held) = status.partitions_held {
        parts.push(format!("{held} of its partitions here"));
    }
    if status.paused {
        parts.push("paused".to_owned());
    }
    match status.breaker.as_ref().map(pb::Breaker::state) {
        Some(pb::breaker::State::Open) => parts.push("breaker open".to_owned()),
        Some(pb::breaker::State::HalfOpen) => parts.push("breaker half open".to_owned()),
        _ => {}
    }
    if !status.fault.is_empty() {
        parts.push(status.fault.clone());
    }
    format!("{}: {}", status.name, parts.join(" · "))
}

async fn test(name: String, path: String, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let answer = daemon.providers().test_provider(pb::TestProviderRequest { name, path }).await?.into_inner();
    let good = answer.answered && (200..300).contains(&answer.status);
    if !output.message("TestProviderResponse", &answer)? {
        let latency = answer.latency.map(|l| format!("{} ms", l.seconds * 1_000 + i64::from(l.nanos) / 1_000_000));
        output.line(&show::facts(&[
            ("status", if answer.answered { answer.status.to_string() } else { "no answer".to_owned() }),
            ("latency", latency.unwrap_or_default()),
            ("error", answer.error.clone()),
        ]))?;
        for header in &answer.limit_headers {
            output.line(&show::one_line(&format!("{}: {}", header.name, header.value)))?;
        }
    }
    Ok(if good { Exit::Done } else { Exit::Failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_told_in_one_sentence() {
        let status = pb::ProviderStatus {
            name: "crm".into(),
            counts: Some(pb::JobCounts { waiting: 1_204, ..Default::default() }),
            sending_per_second: 1.38,
            allowed_per_second: Some(1.39),
            bound_by: "core".into(),
            paused: true,
            ..Default::default()
        };
        assert_eq!(sentence(&status), "crm: 1,204 waiting · sending 1.38/s of 1.39/s allowed · bound by core · paused");
    }
}

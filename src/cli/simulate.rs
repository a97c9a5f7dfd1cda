//! `tidegate simulate`: a provider on this machine that enforces limits exactly and misbehaves on request.
//!
//! Needs no daemon. The first line on stdout is the base URL; the report follows at the end. Must never know: the
//! engine. Next: `crate::simulator`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::exit::{Error, Exit};
use super::output::{Format, Output};
use crate::simulator::config::{HeaderStyle, LimitRule, SimulatorConfig, parse_duration};
use crate::simulator::{Simulator, StartError};

/// Run a provider that enforces limits exactly and misbehaves on request.
///
/// Prints its base URL, then serves until Ctrl-C or SIGTERM and prints what it saw: arrivals, refusals, and the largest
/// count in any window of each limit. Meanwhile: GET /__sim/report, GET /__sim/records/{id}, POST /__sim/reset,
/// POST /__sim/revoke (all access tokens end), PUT /__sim/faults (JSON), DELETE /__sim/faults.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "\
Example: 50 batch calls and 3,600 single calls in any hour, refused with a Retry-After date:
  tidegate simulate --listen 127.0.0.1:8080 --headers retry-after-date \\
    --limit 'batch=rolling:50/1h@POST /users/batch' --limit 'single=rolling:3600/1h@PUT /users/*'")]
pub struct SimulateArgs {
    /// A TOML file with everything below and more; flags win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// A limit, `[NAME=]RULE[@[METHOD ]PATH][;COST@[METHOD ]PATH]...`, where a path that ends in * is a prefix. Rules:
    /// rolling:50/60s, fixed:50/1h, two-counter:50/60s, bucket:100,10/1s, concurrency:8. A request takes one unit, or
    /// what the first COST that fits says (points=rolling:900/60s;5@POST). May be given many times.
    #[arg(long = "limit", value_name = "LIMIT")]
    pub limits: Vec<LimitRule>,
    /// Refused calls use up the limits too.
    #[arg(long)]
    pub refused_counts: bool,
    /// Count each value of this header for itself: the account.
    #[arg(long, value_name = "HEADER")]
    pub account_header: Option<String>,
    /// Status of a refusal: 429, or 403 as some providers do.
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(400..600))]
    pub refuse_status: Option<u16>,
    /// What answers say about the limits.
    #[arg(long, value_enum, value_name = "STYLE")]
    pub headers: Option<HeaderStyle>,
    /// A limit that their numbers are about; of several, and by default of all, the tightest. May be given many times.
    #[arg(long, value_name = "LIMIT")]
    pub headers_of: Vec<String>,
    /// Half of the answers are faster [default: 20ms].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub latency: Option<Duration>,
    /// How long stragglers take [default: 300ms].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub tail: Option<Duration>,
    /// Share of stragglers [default: 0.01].
    #[arg(long, value_name = "SHARE")]
    pub tail_share: Option<f64>,
    /// Same seed, same latency and faults.
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Share of requests answered with 503.
    #[arg(long, value_name = "SHARE")]
    pub errors: Option<f64>,
    /// Share of requests that take effect and are never answered.
    #[arg(long, value_name = "SHARE")]
    pub silence: Option<f64>,
    /// Share of requests that take effect and whose connection is then reset.
    #[arg(long, value_name = "SHARE")]
    pub resets: Option<f64>,
    /// Share of records that fail inside an answered call.
    #[arg(long, value_name = "SHARE")]
    pub record_failures: Option<f64>,
    /// Refuse a call as a whole when the id of one of its records contains this. May be given many times.
    #[arg(long, value_name = "TEXT")]
    pub poison: Vec<String>,
    /// Serve a list page by page: PATH=WAY:ITEMS/PAGE, as /users=link:5000/100. WAY is link, cursor, page or offset. May
    /// be given many times.
    #[arg(long = "list", value_name = "LIST")]
    pub lists: Vec<crate::simulator::ListRule>,
    /// Append every arrival to this file as a JSON line.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

impl SimulateArgs {
    /// The file, overridden by the flags.
    pub fn into_config(self) -> Result<SimulatorConfig, Error> {
        let mut config = match &self.config {
            None => SimulatorConfig::default(),
            Some(path) => {
                let bad = |e: &dyn std::fmt::Display| Error::new(Exit::BadConfig, format!("{}: {e}", path.display()));
                let text = std::fs::read_to_string(path).map_err(|e| bad(&e))?;
                toml::from_str(&text).map_err(|e| bad(&e))?
            }
        };
        fn set<T>(place: &mut T, given: Option<T>) {
            if let Some(value) = given {
                *place = value;
            }
        }
        config.limits.extend(self.limits);
        if self.refused_counts {
            config.limits.iter_mut().for_each(|l| l.refused_counts = true);
        }
        if let Some(header) = self.account_header {
            config.account_header = Some(header);
            config.limits.iter_mut().for_each(|l| l.per = crate::simulator::config::Per::Account);
        }
        set(&mut config.listen, self.listen);
        set(&mut config.refuse_status, self.refuse_status);
        set(&mut config.headers, self.headers);
        config.headers_of.extend(self.headers_of);
        set(&mut config.latency.median, self.latency);
        set(&mut config.latency.tail, self.tail);
        set(&mut config.latency.tail_share, self.tail_share);
        set(&mut config.seed, self.seed);
        set(&mut config.faults.error_share, self.errors);
        set(&mut config.faults.silence_share, self.silence);
        set(&mut config.faults.reset_share, self.resets);
        set(&mut config.faults.record_failure_share, self.record_failures);
        config.faults.poison.extend(self.poison);
        config.lists.extend(self.lists);
        config.log = self.log.or(config.log);
        config.check().map_err(|e| Error::usage(e.to_string()))?;
        Ok(config)
    }
}

/// Serves until a signal comes.
pub async fn run(args: SimulateArgs, output: &Output) -> Result<Exit, Error> {
    let config = args.into_config()?;
    // Before the address is printed: who reads it may send the signal at once.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let simulator = Simulator::start(config).await.map_err(|e| match e {
        StartError::Listen { addr, source } if source.kind() == std::io::ErrorKind::AddrInUse => {
            Error::failed(format!("{addr} is in use")).hint("pass --listen 127.0.0.1:0 to take a free port")
        }
        e => Error::failed(e.to_string()),
    })?;
    output.line(&simulator.base_url())?;
    output.say("the provider is open; Ctrl-C ends it and prints the report");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let report = simulator.stop().await;
    match output.format {
        Format::Json => output.line(&serde_json::to_string_pretty(&report).map_err(std::io::Error::from)?)?,
        Format::Jsonl => output.line(&serde_json::to_string(&report).map_err(std::io::Error::from)?)?,
        _ => output.raw(report.to_string().as_bytes())?,
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn config(flags: &[&str]) -> Result<SimulatorConfig, Error> {
        let command = SimulateArgs::augment_args(Command::new("simulate"));
        let matches = command.try_get_matches_from(std::iter::once(&"simulate").chain(flags)).unwrap();
        SimulateArgs::from_arg_matches(&matches).unwrap().into_config()
    }

    #[test]
    fn flags_win_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sim.toml");
        std::fs::write(
            &file,
            "seed = 4\nlatency = { median = \"5ms\" }\nlimits = [{ name = \"a\", rule = \"fixed:1/1s\" }]",
        )
        .unwrap();
        let file = file.to_str().unwrap();
        let c = config(&["--config", file, "--latency", "7ms", "--limit", "b=concurrency:3@PUT /x*", "--poison", "p"])
            .unwrap();
        assert_eq!((c.seed, c.latency.median), (4, Duration::from_millis(7)));
        assert_eq!(c.limits.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(c.faults.poison, ["p"]);
    }

    #[test]
    fn a_wrong_file_or_flag_ends_with_its_exit_code() {
        assert_eq!(config(&["--config", "/nowhere/sim.toml"]).unwrap_err().exit, Exit::BadConfig);
        assert_eq!(config(&["--errors", "7"]).unwrap_err().exit, Exit::Usage);
        assert_eq!(config(&["--limit", "a=fixed:1/1s", "--limit", "a=fixed:1/1s"]).unwrap_err().exit, Exit::Usage);
    }
}

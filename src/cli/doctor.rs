//! `tidegate doctor`: looks at what a promise rests on, one line per check.
//!
//! `ok`: as it should be. `warn`: works, but look at it. `fail`: a promise does not hold here, or the daemon would not
//! start. Must never know: how the daemon runs. Next: `doctor/checks.rs`.

use std::path::PathBuf;

use super::exit::{Error, Exit};
use super::output::{Format, Output};
use super::show::Rows;
use crate::config::{LoadOptions, SecretCheck, load};

mod checks;
mod shared;

/// Check what the promises rest on: configuration, credentials, disk, limits of the system, clock, addresses.
///
/// Ends with 0 when nothing fails, 78 when the configuration is wrong, else with 1.
///
/// Example: `tidegate doctor --config /etc/tidegate/tidegate.toml`
#[derive(Clone, Debug, clap::Args)]
pub struct Doctor {
    /// The configuration file. Default: no file, defaults alone.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// How one check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub level: Level,
    pub found: String,
}

impl Finding {
    fn new(check: &'static str, level: Level, found: impl Into<String>) -> Self {
        Finding { check, level, found: found.into() }
    }
}

impl Doctor {
    pub async fn run(self, addr: Option<&str>, output: &Output) -> Result<Exit, Error> {
        let options = LoadOptions::from_process(self.config.clone());
        let lenient = LoadOptions { secrets: SecretCheck::Skipped, ..options.clone() };
        // Secrets apart: a missing one must not hide the other checks.
        let loaded = load(&lenient).map_err(|problems| {
            output.say(&problems.render(output.color));
            Error::new(Exit::BadConfig, "the configuration is wrong; nothing else was checked")
        })?;
        let config = &loaded.config;
        let mut findings = vec![
            Finding::new("configuration", Level::Ok, format!("{} providers", config.providers.len())),
            checks::credentials(&options),
        ];
        let daemon = checks::daemon(addr).await;
        findings.extend(checks::base(config, daemon.as_ref()).await);
        findings.push(checks::file_limit(config));
        findings.push(checks::clock());
        findings.extend(checks::addresses(config, daemon.is_some()).await);
        findings.push(checks::service(daemon.as_ref()));
        self.show(&findings, output)?;
        let failed = findings.iter().any(|f| f.level == Level::Fail);
        Ok(if failed { Exit::Failed } else { Exit::Done })
    }

    fn show(&self, findings: &[Finding], output: &Output) -> Result<(), Error> {
        let json = |e: serde_json::Error| Error::failed(e.to_string());
        match output.format {
            Format::Json => output.line(&serde_json::to_string_pretty(findings).map_err(json)?),
            Format::Jsonl => findings.iter().try_for_each(|f| output.line(&serde_json::to_string(f).map_err(json)?)),
            Format::Name => findings.iter().try_for_each(|f| output.line(f.check)),
            Format::Table | Format::Wide => {
                let mut rows = Rows::new(&["", "CHECK", "FOUND"]);
                for f in findings {
                    rows.add([f.level.name().to_owned(), f.check.to_owned(), f.found.clone()]);
                }
                output.line(&rows.text())
            }
        }
    }
}

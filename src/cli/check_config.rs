//! `tidegate check-config`: everything that is wrong with a configuration, at once.
//!
//! Must never know: what the keys mean. Next: `crate::config`.

use std::path::PathBuf;

use super::exit::{Error, Exit};
use super::output::Output;
use crate::config::{DEFAULT_TOML, LoadOptions, SecretCheck, load};

/// Check a configuration with its providers, and say everything that is wrong, with file, line and column.
///
/// Ends with 0 when the daemon would start with it, else with 78.
///
/// Example: `tidegate check-config /etc/tidegate/tidegate.toml --explain`
#[derive(Clone, Debug, clap::Args)]
pub struct CheckConfig {
    /// The configuration file. Providers stand in it, or in `providers.d/*.toml` beside it.
    #[arg(default_value = "tidegate.toml", value_name = "FILE")]
    file: PathBuf,
    /// Print every setting in force and where it came from. Secrets are shown as references.
    #[arg(long)]
    explain: bool,
    /// Print the manual: every key with its meaning, unit, bounds and default, and check nothing.
    #[arg(long, conflicts_with = "explain")]
    manual: bool,
    /// Do not look whether secrets are there: for checking on another machine than the daemon's.
    #[arg(long)]
    without_secrets: bool,
}

impl CheckConfig {
    pub fn run(self, output: &Output) -> Result<Exit, Error> {
        if self.manual {
            output.raw(DEFAULT_TOML.as_bytes())?;
            return Ok(Exit::Done);
        }
        let secrets = if self.without_secrets { SecretCheck::Skipped } else { SecretCheck::Required };
        let options = LoadOptions { secrets, ..LoadOptions::from_process(Some(self.file.clone())) };
        let loaded = load(&options).map_err(|problems| {
            let n = problems.len();
            output.say(&problems.render(output.color));
            let problems = if n == 1 { "problem" } else { "problems" };
            Error::new(Exit::BadConfig, format!("{}: {n} {problems}", self.file.display()))
        })?;
        if self.explain {
            output.raw(loaded.explain().as_bytes())?;
        }
        for warning in &loaded.warnings {
            output.say(&format!("warning: {warning}"));
        }
        let n = loaded.config.providers.len();
        let providers = if n == 1 { "provider" } else { "providers" };
        output.say(&format!("{} is good: {n} {providers}", self.file.display()));
        Ok(Exit::Done)
    }
}

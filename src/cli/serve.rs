//! `tidegate serve`: the daemon in the foreground. Under systemd, see systemd/tidegate.service.
//!
//! Must never know: what the daemon is made of. Next: `app`.

use std::path::PathBuf;
use std::time::Duration;

use super::exit::{Error, Exit};
use super::output::Output;
use crate::app::{self, ServeError, StartError};
use crate::config::{self, LoadOptions, LogFormat};
use crate::telemetry;

/// The last traces have this long to leave at the end.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Run the daemon in the foreground until SIGTERM or SIGINT. SIGHUP reads the configuration again.
///
/// Exit code 78: the configuration is wrong, and starting again will not help. Example:
/// `tidegate serve --config tidegate.toml`
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration file. Providers stand in it, or in `providers.d/*.toml` beside it. Without it everything has
    /// its default.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Overrides one setting, as `--set server.listen=127.0.0.1:0`. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Args {
    fn options(&self) -> Result<LoadOptions, Error> {
        let mut options = LoadOptions::from_process(self.config.clone());
        for pair in &self.set {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| Error::usage(format!("expected --set KEY=VALUE, got {pair:?}")))?;
            options.flags.push((key.to_owned(), value.to_owned()));
        }
        Ok(options)
    }
}

pub async fn run(args: Args, output: &Output) -> Result<Exit, Error> {
    let options = args.options()?;
    let loaded = config::load(&options).map_err(|problems| Error::new(Exit::BadConfig, problems.to_string()))?;
    let log = &loaded.config.log;
    let format = match log.format {
        LogFormat::Auto => telemetry::log::Format::Auto,
        LogFormat::Text => telemetry::log::Format::Text,
        LogFormat::Json => telemetry::log::Format::Json,
    };
    let wanted = telemetry::Options {
        format,
        filter: log.level.clone(),
        otlp_endpoint: loaded.config.telemetry.otlp.as_ref().map(ToString::to_string),
    };
    let telemetry = telemetry::start(&wanted).map_err(|e| Error::failed(e.to_string()))?;
    let served = app::serve(loaded, options, |app| {
        let at = |a: Option<std::net::SocketAddr>| a.map_or_else(|| "nowhere".to_owned(), |a| a.to_string());
        output.say(&format!("tidegate: gRPC on {}, HTTP on {}", at(app.address()), at(app.http_address())));
    })
    .await;
    // On a thread of its own: the runtime's must be free to carry the spans away. One that panicked has said so.
    let _ = tokio::task::spawn_blocking(move || telemetry.flush(FLUSH_MAX)).await;
    match served {
        Ok(()) => Ok(Exit::Done),
        Err(ServeError::Start(e @ (StartError::Declaration { .. } | StartError::Shared(_)))) => {
            Err(Error::new(Exit::BadConfig, e.to_string()))
        }
        Err(e) => Err(Error::failed(e.to_string())),
    }
}

//! `tidegate serve`: the daemon under its signals. SIGTERM and SIGINT stop it in steps, SIGHUP reloads.

use tokio::signal::unix::{SignalKind, signal};

use super::{App, StartError, systemd};
use crate::config::{LoadOptions, Loaded};

/// Why the daemon ended with a failure.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("no signal handlers: {0}")]
    Signals(std::io::Error),
    /// An actor or the store failed for good; the service manager should start the daemon again.
    #[error("{0}")]
    Failed(String),
}

/// Runs until a signal says stop. `listening` hears where, once jobs are accepted.
pub async fn serve(loaded: Loaded, options: LoadOptions, listening: impl FnOnce(&App)) -> Result<(), ServeError> {
    // Before anything else: a SIGTERM during the start must not kill half of it.
    let stream = |kind| signal(kind).map_err(ServeError::Signals);
    let mut term = stream(SignalKind::terminate())?;
    let mut interrupt = stream(SignalKind::interrupt())?;
    let mut hangup = stream(SignalKind::hangup())?;
    let app = App::start(loaded, options).await?;
    let watched = app.handle().clone();
    app.handle().supervisor().actor("systemd", Default::default(), move |beat| systemd::watch(watched.clone(), beat));
    listening(&app);
    systemd::ready(&systemd::status_line(app.handle()).await);
    let supervisor = app.handle().supervisor().clone();
    let failure = loop {
        tokio::select! {
            _ = term.recv() => break None,
            _ = interrupt.recv() => break None,
            reason = supervisor.failed() => break Some(reason),
            _ = hangup.recv() => {
                systemd::reloading();
                match app.reload().run().await {
                    Ok(done) => {
                        done.changes.iter().chain(&done.after_restart).for_each(|c| tracing::info!("reload: {c}"));
                        systemd::ready("reloaded");
                    }
                    Err(e) => {
                        tracing::error!("reload refused, nothing changed: {e}");
                        systemd::ready("the last reload was refused; see the log");
                    }
                }
            }
        }
    };
    systemd::stopping();
    let left = app.stop().await;
    tracing::info!(calls_cut = left.calls_cut, jobs_waiting = left.jobs_waiting, "stopped");
    match failure {
        Some(reason) => Err(ServeError::Failed(reason)),
        None => Ok(()),
    }
}

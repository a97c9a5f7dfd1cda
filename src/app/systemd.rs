//! The service manager's side: READY, STATUS, WATCHDOG, RELOADING, STOPPING. Does nothing outside of systemd.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::engine::Handle;
use crate::engine::supervisor::{BEAT_EVERY, Beat};

/// STATUS is refreshed this often where no watchdog asks for more.
const STATUS_EVERY: Duration = Duration::from_secs(10);
const STORE_ANSWER_MAX: Duration = Duration::from_secs(2);

pub fn tell(states: &[NotifyState<'_>]) {
    // Not under systemd: nothing to tell.
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!(error = %e, "the service manager could not be told");
    }
}

pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing the calls on the wire")]);
}

/// Between this and the next `ready` a reload is going on.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(stamp) => tell(&[NotifyState::Reloading, stamp]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// One line for `systemctl status`.
pub async fn status_line(handle: &Handle) -> String {
    // The watchdog is fed after this: a store that is away must not starve it.
    let waiting = match tokio::time::timeout(STORE_ANSWER_MAX, handle.store().tallies()).await {
        Ok(Ok(tallies)) => {
            format!("{} jobs waiting", tallies.iter().map(|t| t.counts.waiting()).sum::<u64>())
        }
        Ok(Err(_)) | Err(_) => "the store does not answer".to_owned(),
    };
    let paused = handle.providers().iter().filter(|p| p.2).count();
    let mut line = format!("{waiting}, {} calls on the wire, {paused} providers paused", handle.in_flight());
    if let Some(standing) = handle.standing() {
        let held: usize = handle.providers().iter().map(|(p, ..)| standing.partitions_held(&p.name)).sum();
        line.push_str(&format!(", {held} partitions held, {} daemons", standing.alive()));
        standing.fault().iter().for_each(|fault| line.push_str(&format!("; {fault}")));
    }
    line
}

/// Feeds the watchdog while the actors live, and keeps the status line fresh.
pub async fn watch(handle: Handle, beat: Beat) -> Result<(), String> {
    let every = sd_notify::watchdog_enabled().map_or(STATUS_EVERY, |limit| limit / 3);
    loop {
        beat.beat();
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            // Nobody listens: no need to look into the store every few seconds.
            tokio::select! {
                () = beat.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(BEAT_EVERY) => continue,
            }
        }
        let line = status_line(&handle).await;
        match handle.supervisor().hung() {
            // Fed only while gates, writer and sweeper have beaten recently.
            None => tell(&[NotifyState::Watchdog, NotifyState::Status(&line)]),
            Some(actor) => {
                tracing::error!(%actor, "an actor hangs; the watchdog is not fed");
                tell(&[NotifyState::Status(&format!("{actor} hangs"))]);
            }
        }
        tokio::select! {
            () = beat.stop.cancelled() => return Ok(()),
            () = handle.clock().sleep_until(handle.clock().steady() + every.min(BEAT_EVERY)) => {}
        }
    }
}

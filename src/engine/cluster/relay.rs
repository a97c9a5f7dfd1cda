//! Passes on what other daemons committed, as if it had been committed here: flows to gates, events to watchers,
//! declarations to the registry, due times to the sweeper, cancels to workers.
//!
//! And to `members`, that partitions are to be had. News are hints: what they name is read from the store. A connection that was lost means that anything may have been
//! missed, and everything is looked at. Must never know: SQL, what gates make of it. Next: `truth`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Cluster;
use crate::engine::calloff;
use crate::engine::handle::Handle;
use crate::engine::supervisor::{ActorResult, BEAT_EVERY, Beat, Supervisor};
use crate::model::name::ProviderName;
use crate::store::{AppliedProvider, Error, Notice, PAGE_MAX, Touched};

/// Wait before the next try while the store is away.
const AGAIN: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub struct Relay {
    pub handle: Handle,
    pub cluster: Cluster,
}

impl Relay {
    pub fn start(self, supervisor: &Supervisor) {
        let relay = Arc::new(self);
        supervisor.actor("relay", Default::default(), move |beat| {
            let relay = relay.clone();
            async move { relay.run(beat).await }
        });
    }

    async fn run(&self, beat: Beat) -> ActorResult {
        let mut away = false;
        loop {
            beat.beat();
            match self.pass_on(&beat, &mut away).await {
                Ok(()) => return Ok(()),
                Err(e @ Error::Fatal { .. }) => return Err(e.to_string()),
                // No fault of this actor, and restarts are counted: a database that is away for a minute must not end
                // every daemon of the cluster.
                Err(e) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(error = %e, "no news of other daemons; all is looked at once the store is back");
                    }
                }
            }
            tokio::select! {
                biased;
                () = beat.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// Until the daemon stops, or the store does not answer.
    async fn pass_on(&self, beat: &Beat, away: &mut bool) -> Result<(), Error> {
        // Listening begins before anything is read, so nothing falls in between.
        let Some(mut notices) = self.handle.store().notices().await? else { return Ok(()) };
        let mut last_event = self.handle.store().event_bounds().await?.1;
        self.everything(&mut last_event).await?;
        *away = false;
        loop {
            beat.beat();
            let notice = tokio::select! {
                biased;
                () = beat.stop.cancelled() => return Ok(()),
                notice = notices.recv() => notice,
                () = tokio::time::sleep(BEAT_EVERY) => continue,
            };
            let ended = || Error::Unavailable { reason: "it tells no news any more".to_owned() };
            let notice = notice.ok_or_else(ended)?;
            let mut all = Some(notice);
            // What came meanwhile is looked at together: a flow that changed ten times is read once.
            let mut touched = Touched::default();
            let mut everything = false;
            while let Some(notice) = all.take() {
                match notice {
                    Notice::Everything => everything = true,
                    Notice::Changed(more) => join(&mut touched, more),
                }
                if touched.flows.len() < PAGE_MAX {
                    all = next(&mut notices);
                }
            }
            let done = if everything {
                self.everything(&mut last_event).await
            } else {
                self.changed(touched, &mut last_event).await
            };
            done?;
        }
    }

    async fn changed(&self, mut touched: Touched, last_event: &mut i64) -> Result<(), Error> {
        if touched.given_back {
            // First: accounts stand still until somebody has them.
            self.cluster.given_back.notify_one();
        }
        touched.flows.sort_unstable();
        touched.flows.dedup();
        let signals = self.handle.signals();
        for id in touched.flows {
            if let Some(flow) = self.handle.store().flow(id).await? {
                let flows = signals.flow_box(&flow.key.provider);
                flows.put(flow);
                flows.wake.notify_one();
            }
        }
        for which in &touched.invalidated {
            self.handle.hear_invalidated(which);
        }
        touched.providers.iter().for_each(|name| self.reload(name));
        if touched.due {
            signals.set_next_due(self.handle.store().next_due().await?);
        }
        if touched.called_off {
            calloff::look_at_all(self.handle.desk(), &**self.handle.store()).await?;
        }
        if touched.declarations {
            self.declarations().await?;
        }
        if touched.events { self.events(last_event).await } else { Ok(()) }
    }

    async fn everything(&self, last_event: &mut i64) -> Result<(), Error> {
        self.handle.cache().clear();
        calloff::look_at_all(self.handle.desk(), &**self.handle.store()).await?;
        self.declarations().await?;
        self.handle.registry().all().keys().for_each(|name| self.reload(name));
        self.handle.signals().set_next_due(self.handle.store().next_due().await?);
        self.events(last_event).await
    }

    fn reload(&self, name: &ProviderName) {
        if let Some(entry) = self.handle.registry().get(name) {
            entry.gate.reload();
        }
    }

    /// Watchers find gaps by themselves and read the log; they only must hear that it has grown.
    async fn events(&self, last: &mut i64) -> Result<(), Error> {
        if !self.handle.signals().is_watched() {
            return Ok(());
        }
        let (first, end) = self.handle.store().event_bounds().await?;
        *last = (*last).max(first - 1).max(end - PAGE_MAX as i64);
        let events = self.handle.store().events(*last, PAGE_MAX).await?;
        if let Some(newest) = events.last() {
            *last = newest.seq;
            self.handle.signals().broadcast(events);
        }
        Ok(())
    }

    /// The store holds the revision in force; the last apply wins, whoever made it.
    async fn declarations(&self) -> Result<(), Error> {
        self.handle.scheduler().changed();
        let stored = self.handle.store().providers().await?;
        for gone in self.handle.registry().all().keys().filter(|name| !stored.iter().any(|p| p.name == **name)) {
            self.handle.forget_provider(gone);
        }
        stored.into_iter().for_each(|applied| self.declare(applied));
        Ok(())
    }

    fn declare(&self, applied: AppliedProvider) {
        let known = self.handle.registry().get(&applied.name);
        if let Some(entry) = known.as_ref().filter(|entry| entry.revision == applied.revision) {
            if entry.paused != applied.paused {
                self.handle.set_paused(&applied.name, applied.paused);
            }
            if let Some(memory) = applied.memory {
                entry.gate.hear(memory);
            }
            return;
        }
        match (self.cluster.read)(&applied.name, &applied.source) {
            Ok(provider) => self.handle.follow(Arc::new(provider), &applied),
            Err(reason) => {
                tracing::error!(provider = %applied.name, revision = applied.revision, reason,
                    "another daemon applied a declaration that cannot be read here; the former one stays");
            }
        }
    }
}

fn next(notices: &mut mpsc::Receiver<Notice>) -> Option<Notice> {
    notices.try_recv().ok()
}

fn join(into: &mut Touched, more: Touched) {
    into.flows.extend(more.flows);
    into.providers.extend(more.providers);
    into.events |= more.events;
    into.declarations |= more.declarations;
    into.due |= more.due;
    into.called_off |= more.called_off;
    into.invalidated.extend(more.invalidated);
    into.given_back |= more.given_back;
}

//! The daemon itself: what it is, what it did, and sending it off.
//!
//! Must never know: proto types. Next: [`crate::engine::status`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::error::{Error, Result};
use super::feed::Feed;
use super::health::{Health, STORE_ANSWER_MAX};
use super::{Api, page};
use crate::clock::Timestamp;
use crate::engine::cluster::standing::Standing;
use crate::engine::status::{ActorInfo, ClusterView};
use crate::model::event::{Event, What};
use crate::model::flow::{FlowCounts, FlowKey};
use crate::model::id::JobId;
use crate::model::worker::WorkerView;

/// Longest time that a list of events waits for one.
pub const EVENTS_WAIT_MAX: Duration = Duration::from_secs(30);
/// Ids told per event, and per page.
const IDS_PER_EVENT: usize = 100;
const IDS_PER_PAGE: usize = 1_000;

#[derive(Clone, Debug)]
pub struct Daemon {
    pub version: &'static str,
    pub started_at: Timestamp,
    pub now: Timestamp,
    pub draining: bool,
    pub store: StoreStatus,
    pub actors: Vec<ActorInfo>,
    pub providers: usize,
    pub counts: FlowCounts,
    pub last_event: i64,
    /// `None`: this daemon is alone.
    pub cluster: Option<ClusterView>,
    pub health: Health,
    /// Programs that take jobs from this daemon.
    pub workers: Vec<WorkerView>,
}

/// The store's facts about itself, read back.
#[derive(Clone, Debug, Default)]
pub struct StoreStatus {
    pub kind: String,
    pub schema_version: i64,
    pub durability: String,
    pub size_bytes: u64,
    pub epoch: i64,
    /// Why it did not answer; everything else is empty then.
    pub fault: Option<String>,
}

/// An event with what makes it readable.
#[derive(Clone, Debug)]
pub struct EventView {
    pub event: Event,
    /// `None`: the event is not about jobs of a flow that is still kept.
    pub flow: Option<Arc<FlowKey>>,
    pub jobs: Vec<JobId>,
}

#[derive(Clone, Debug)]
pub struct Events {
    pub items: Vec<EventView>,
    pub next_page_token: String,
    pub more: bool,
}

/// Where a list of events begins, and how long it may wait.
#[derive(Clone, Debug, Default)]
pub struct AskEvents {
    pub page_size: i32,
    pub page_token: String,
    /// Negative: that many from the end.
    pub after_sequence: i64,
    pub wait: Duration,
}

impl Api {
    pub async fn daemon(&self) -> Result<Daemon> {
        // Who asks while the store is away wants to know all the rest.
        let (store, counts, last_event) = match tokio::time::timeout(STORE_ANSWER_MAX, self.stored()).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(e)) => {
                (StoreStatus { fault: Some(e.to_string()), ..StoreStatus::default() }, FlowCounts::default(), 0)
            }
            Err(_) => {
                let fault = Some(format!("no answer for {} s", STORE_ANSWER_MAX.as_secs()));
                (StoreStatus { fault, ..StoreStatus::default() }, FlowCounts::default(), 0)
            }
        };
        Ok(Daemon {
            version: self.0.options.version,
            started_at: self.0.started_at,
            now: self.clock().now(),
            draining: self.is_draining(),
            store,
            actors: self.engine().actors(),
            providers: self.engine().providers().len(),
            counts,
            last_event,
            workers: self.workers(),
            cluster: self.engine().standing().map(Standing::view),
            health: self.health().await,
        })
    }

    async fn stored(&self) -> Result<(StoreStatus, FlowCounts, i64)> {
        let store = self.engine().store();
        let info = store.info().await?;
        let mut counts = FlowCounts::default();
        for tally in store.tallies().await? {
            add(&mut counts, &tally.counts);
        }
        let status = StoreStatus {
            kind: info.kind,
            schema_version: info.schema_version,
            durability: info.durability,
            size_bytes: info.size_bytes,
            epoch: info.epoch,
            fault: None,
        };
        Ok((status, counts, store.event_bounds().await?.1))
    }

    pub async fn list_events(&self, ask: AskEvents) -> Result<Events> {
        if ask.wait > EVENTS_WAIT_MAX {
            let said = format!("expected at most {} seconds, got {}", EVENTS_WAIT_MAX.as_secs(), ask.wait.as_secs());
            return Err(Error::field("wait", "BAD_WAIT", said));
        }
        let size = page::size(ask.page_size)?;
        let list = page::fingerprint("events", "");
        let store = self.engine().store();
        let (first, last) = store.event_bounds().await?;
        let after = match page::position(list, &ask.page_token)? {
            Some(after) => after,
            None if ask.after_sequence < 0 => (last + ask.after_sequence).max(first - 1),
            None => ask.after_sequence,
        };
        let mut events = store.events(after, size).await?;
        if events.is_empty() && !ask.wait.is_zero() && after >= last {
            let mut feed = Feed::start(self, Some(last)).await?;
            events = feed.next(self.clock().steady() + ask.wait).await?;
            events.retain(|event| event.seq > after);
        }
        let more = events.len() > size || events.len() == size && events.last().is_some_and(|e| e.seq < last);
        events.truncate(size);
        let next = events.last().map_or(after, |event| event.seq);
        Ok(Events { items: self.event_views(events).await?, next_page_token: page::token(list, next), more })
    }

    /// Stops accepting and releasing. Returns the calls that were on the wire.
    pub fn drain(&self) -> u32 {
        let in_flight = self.engine().in_flight();
        self.engine().drain();
        in_flight
    }

    async fn event_views(&self, events: Vec<Event>) -> Result<Vec<EventView>> {
        let store = self.engine().store();
        let mut room = IDS_PER_PAGE;
        let mut wanted: Vec<i64> = Vec::new();
        for event in &events {
            let shown = jobs_of(event).iter().take(IDS_PER_EVENT.min(room));
            let had = wanted.len();
            wanted.extend(shown);
            room -= wanted.len() - had;
        }
        wanted.sort_unstable();
        wanted.dedup();
        let ids: HashMap<i64, JobId> = store.jobs(&wanted).await?.iter().map(|job| (job.id.seq, job.id)).collect();
        let mut views = Vec::with_capacity(events.len());
        for event in events {
            let flow = match &event.what {
                What::Enqueued { flow, .. } | What::Changed { flow, .. } => {
                    self.0.names.flow(store.as_ref(), *flow).await?
                }
                _ => None,
            };
            let jobs = jobs_of(&event).iter().take(IDS_PER_EVENT).filter_map(|seq| ids.get(seq).copied()).collect();
            views.push(EventView { event, flow, jobs });
        }
        Ok(views)
    }
}

/// Sequence numbers of the jobs that an event is about.
pub fn jobs_of(event: &Event) -> &[i64] {
    match &event.what {
        What::Enqueued { jobs, .. } | What::Changed { jobs, .. } | What::DuplicateObserved { jobs, .. } => jobs,
        _ => &[],
    }
}

fn add(sum: &mut FlowCounts, more: &FlowCounts) {
    for (mine, other) in sum.ready.iter_mut().zip(more.ready) {
        *mine += other;
    }
    sum.later += more.later;
    sum.behind += more.behind;
    sum.calling += more.calling;
    sum.unknown += more.unknown;
    sum.delivered += more.delivered;
    sum.dead += more.dead;
    sum.cancelled += more.cancelled;
}

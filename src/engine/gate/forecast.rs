//! When will it go? Puts the limits and the backlog of a gate before `plan/forecast`.
//!
//! Computed from the limiter's state and the backlog, never extrapolated from past speed. Next: `plan/forecast`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::actor::Gate;
use super::group::GroupKey;
use crate::clock::Timestamp;
use crate::model::call::Lane;
use crate::model::flow::Class;
use crate::model::id::FlowId;
use crate::model::provider::Provider;
use crate::plan::forecast::{LaneForecast, departure, position, rate};

/// Groups that a provider's forecast looks at; with more, the largest backlog of these speaks.
const GROUPS_MAX: usize = 200;
/// How long a call is taken to last before one has ended.
const CALL_TIME: Duration = Duration::from_millis(100);
/// One that takes longer was stuck, and says nothing about the others.
const CALL_TIME_MAX_US: u64 = 60_000_000;
/// Share of the newest call in what a call is taken to last.
const NEWEST: u64 = 8;

/// How long calls of a provider take from their begin to their answer, of late; in microseconds.
#[derive(Debug)]
pub(super) struct CallTime(AtomicU64);

impl Default for CallTime {
    fn default() -> Self {
        CallTime(AtomicU64::new(CALL_TIME.as_micros() as u64))
    }
}

impl CallTime {
    pub fn saw(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(CALL_TIME_MAX_US);
        let next = |known: u64| Some(known - known / NEWEST + took / NEWEST);
        // Always something to store.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok();
    }

    pub fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

#[derive(Debug, Default)]
pub(super) struct Forecast {
    /// Steady time at which the last of the jobs asked about has left; `None` when it cannot be said.
    pub through_at: Option<Timestamp>,
    /// Jobs per second that the limits allow for the work at hand; `None`: no limit binds.
    pub allowed_per_second: Option<f64>,
    /// Name of the limit that binds.
    pub bound_by: Option<String>,
}

impl Gate {
    /// For everything that waits, or for the job behind `ahead` others of its flow.
    pub async fn forecast(&mut self, of: Option<(FlowId, Class, u64)>) -> Forecast {
        match of {
            Some((flow, class, ahead)) => self.forecast_job(flow, class, ahead).await,
            None => self.forecast_all().await,
        }
    }

    async fn forecast_job(&mut self, flow: FlowId, class: Class, ahead: u64) -> Forecast {
        let Some(found) = self.flows.get(&flow) else { return Forecast::default() };
        let key = GroupKey::of(&found.key);
        // Others of the group take turns with it; of those, only jobs as urgent as this one go before it.
        let rivals = self.flows.values().filter(|f| f.id != flow && !f.held && GroupKey::of(&f.key) == key);
        let as_urgent = |r: [u64; 3]| r[..=class as usize].iter().sum::<u64>();
        let place = position(ahead, 1, rivals.take(GROUPS_MAX).map(|f| (as_urgent(f.counts.ready), 1)));
        let place = self.with_other_parts(&key, place);
        self.forecast_group(&key, class, place).await
    }

    /// Other daemons' parts of a spread account have as much waiting as ours and spend the same limits.
    fn with_other_parts(&self, key: &GroupKey, jobs: u64) -> u64 {
        let Provider { name, spread, .. } = &*self.current.provider;
        let held = if *spread > 1 { self.parts.owned.parts_held(name, &key.account, *spread) } else { 1 };
        jobs.saturating_mul(u64::from(*spread)).div_ceil(u64::from(held.max(1)))
    }

    async fn forecast_all(&mut self) -> Forecast {
        // The least urgent class is the last to be through; what is not ready counts as normal.
        let mut backlog: BTreeMap<GroupKey, (u64, Class)> = BTreeMap::new();
        for flow in self.flows.values().filter(|f| !f.held) {
            let entry = backlog.entry(GroupKey::of(&flow.key)).or_insert((0, Class::Urgent));
            let not_ready = flow.counts.waiting() > flow.counts.ready_all();
            let last = Class::ALL.into_iter().rfind(|c| flow.counts.ready[*c as usize] > 0);
            entry.0 += flow.counts.waiting();
            entry.1 = entry.1.max(last.unwrap_or_default()).max(if not_ready { Class::Normal } else { Class::Urgent });
        }
        let mut all = Forecast::default();
        for (key, (jobs, class)) in backlog.into_iter().filter(|(_, (jobs, _))| *jobs > 0).take(GROUPS_MAX) {
            let jobs = self.with_other_parts(&key, jobs);
            let one = self.forecast_group(&key, class, jobs).await;
            if let Some(per_second) = one.allowed_per_second {
                *all.allowed_per_second.get_or_insert(0.0) += per_second;
            }
            // The last one to be through speaks for the provider; one that cannot be told makes all untold.
            match (one.through_at, all.through_at) {
                (None, _) => return Forecast { through_at: None, bound_by: one.bound_by, ..all },
                (Some(at), Some(latest)) if at <= latest => {}
                (Some(at), _) => (all.through_at, all.bound_by) = (Some(at), one.bound_by),
            }
        }
        all
    }

    async fn forecast_group(&mut self, key: &GroupKey, class: Class, jobs: u64) -> Forecast {
        let now = self.now();
        let Some(operation) = self.current.provider.operations.get(&key.operation).cloned() else {
            return Forecast::default();
        };
        let mut lanes = Vec::new();
        for lane in Lane::ALL {
            let Some(spec) = operation.lane(lane) else { continue };
            let spends = self.spends(key, &operation, lane);
            let limits = self.parts.limiter.peek(now, &spends).await.unwrap_or_default();
            lanes.push(LaneForecast { limits, size: spec.size_max, call_time: self.shared.call_time.get() });
        }
        let departure = departure(now, &lanes, class, jobs);
        let names = |key: &crate::model::call::LimitKey| key.to_string();
        Forecast {
            through_at: (departure.at != Timestamp::NEVER).then_some(departure.at),
            allowed_per_second: rate(&lanes, class),
            bound_by: departure.bound_by.as_ref().map(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_call_follows_the_latest() {
        let time = CallTime::default();
        assert_eq!(time.get(), CALL_TIME);
        (0..100).for_each(|_| time.saw(Duration::from_secs(2)));
        assert!((1_990..=2_000).contains(&time.get().as_millis()), "{:?}", time.get());
        time.saw(Duration::MAX);
        assert!(time.get() < Duration::from_secs(10), "{:?}", time.get());
    }
}

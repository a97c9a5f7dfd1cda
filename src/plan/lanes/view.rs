//! How a lane stands: several limits seen as one.
//!
//! A call needs room in every limit, so the smallest room counts; and a lane can go on only as fast as its slowest
//! limit. Must never know: where the counts live. Next: `plan/lanes.rs`.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::limit::LimitView;
use crate::model::flow::Class;

/// An interval that never ends: no permit to be had.
pub const NO_PERMIT: Duration = Duration::MAX;
/// A lane of so few permits per window is often closed though nothing is wrong.
const FEW_PERMITS: u32 = 4;

#[derive(Clone, Debug, PartialEq)]
pub struct LaneView {
    /// Calls that may leave now per class, most urgent first; `u32::MAX` without limits.
    pub free: [u32; 3],
    /// Steady time from which at least one call per class may leave; in the past when it may now, `NEVER` when only an
    /// answer can help.
    pub opens_at: [Timestamp; 3],
    /// Steady time at which the next used permit returns.
    pub next_return_at: Timestamp,
    /// Calls per time in the long run; `None` when no limit counts over time.
    pub pace: Option<Pace>,
    /// The even interval between calls that can be kept up from now on; zero without limits, [`NO_PERMIT`] when
    /// none is free.
    pub interval: Duration,
}

/// `calls` per `window`, by the slowest limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    pub calls: u32,
    pub window: Duration,
}

impl Pace {
    pub fn per_us(self) -> f64 {
        f64::from(self.calls) / (self.window.as_secs_f64() * 1e6).max(1.0)
    }

    /// Between two calls that are spaced evenly.
    pub fn interval(self) -> Duration {
        self.window / self.calls.max(1)
    }
}

/// The two lanes of an operation for one account.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lanes {
    pub single: Option<LaneView>,
    pub batch: Option<LaneView>,
    /// The limit that slows the batch lane is spent by singles as well: every single takes a batch's place.
    pub contended: bool,
}

impl Lanes {
    /// From the limits that a call of each lane spends; `None` for a lane that does not exist.
    pub fn new(now: Timestamp, single: Option<&[LimitView]>, batch: Option<&[LimitView]>) -> Self {
        let (Some(ours), Some(theirs)) = (single, batch) else {
            return Lanes {
                single: single.map(|l| LaneView::new(now, l)),
                batch: batch.map(|l| LaneView::new(now, l)),
                contended: false,
            };
        };
        let batch = LaneView::new(now, theirs);
        let shared = |limit: &LimitView| theirs.iter().any(|t| t.key == limit.key);
        let slowest = theirs.iter().filter(|l| !l.per.is_zero()).max_by(|a, b| slowness(a).total_cmp(&slowness(b)));
        let contended = slowest.is_some_and(|s| ours.iter().any(|o| o.key == s.key));
        // What both spend is left to the batches as far as they can use it: a batch moves more with the same permit.
        let mut left = ours.to_vec();
        if !contended {
            for limit in left.iter_mut().filter(|l| shared(l)) {
                let batches = batch.pace.map_or(0, |p| in_window(p, limit.per)).saturating_mul(limit.cost);
                let kept = batches.min(batch.free[0].saturating_mul(limit.cost));
                for free in &mut limit.free_by_class[1..] {
                    *free = free.saturating_sub(kept);
                }
                limit.free = limit.free_by_class[2];
                limit.max = limit.max.saturating_sub(batches).max(limit.cost);
            }
        }
        Lanes { single: Some(LaneView::new(now, &left)), batch: Some(batch), contended }
    }
}

impl LaneView {
    pub fn new(now: Timestamp, limits: &[LimitView]) -> Self {
        let mut lane = LaneView {
            free: [u32::MAX; 3],
            opens_at: [Timestamp::ZERO; 3],
            next_return_at: Timestamp::NEVER,
            pace: None,
            interval: Duration::ZERO,
        };
        let mut slowest = 0.0;
        for limit in limits {
            for class in Class::ALL {
                let i = class as usize;
                lane.free[i] = lane.free[i].min(limit.calls(class));
                lane.opens_at[i] = lane.opens_at[i].max(opens_at(limit, class));
            }
            lane.next_return_at = lane.next_return_at.min(limit.next_free_at);
            if limit.per.is_zero() {
                continue;
            }
            lane.interval = lane.interval.max(interval(now, limit));
            if slowness(limit) > slowest {
                slowest = slowness(limit);
                let calls = limit.max.saturating_sub(limit.kept_by_class[Class::Normal as usize]) / limit.cost;
                lane.pace = Some(Pace { calls: calls.max(1), window: limit.per });
            }
        }
        lane
    }
}

/// Seconds per call in the long run.
fn slowness(limit: &LimitView) -> f64 {
    limit.per.as_secs_f64() * f64::from(limit.cost) / f64::from(limit.max.max(1))
}

/// Calls of a pace within a span, rounded up.
fn in_window(pace: Pace, span: Duration) -> u32 {
    (pace.per_us() * span.as_secs_f64() * 1e6).ceil() as u32
}

/// When one call of a class fits: a time that is over if it fits now, `NEVER` when only an answer can make room.
///
/// Three things may be in the way, and each has its own end: "not now", what the provider said is left, and our own count.
/// A permit that returns in an hour is no reason to wait for where there are others.
pub fn opens_at(limit: &LimitView, class: Class) -> Timestamp {
    if limit.calls(class) > 0 {
        return Timestamp::ZERO;
    }
    let need = u64::from(limit.kept_by_class[class as usize]) + u64::from(limit.cost);
    let blocked = limit.blocked_until.unwrap_or(Timestamp::ZERO);
    // Until the reset; an answer may show sooner that more is left than the calls in flight let us think.
    let lacking = limit.said.filter(|said| u64::from(said.free(limit.in_flight)) < need);
    let said = lacking.map_or(Timestamp::ZERO, |said| said.until);
    blocked.max(said).max(counted(limit, need))
}

/// When our own count has room.
fn counted(limit: &LimitView, need: u64) -> Timestamp {
    let held = u64::from(limit.used) + u64::from(limit.in_flight);
    let mut short = (held + need).saturating_sub(u64::from(limit.max));
    if short == 0 {
        return Timestamp::ZERO;
    }
    for &(at, n) in &limit.returns {
        short = short.saturating_sub(u64::from(n));
        if short == 0 {
            return at;
        }
    }
    Timestamp::NEVER
}

/// The sustainable interval: the largest of x_j / (a + j - 1) over the used permits, where a permits are free now and
/// the j-th used one returns after x_j; never below what the declaration gives in the long run. Calls in flight are
/// taken to return after a whole window. (3-limits.md, rule 2.) With a = 0 nothing can be kept up, and no credit for
/// partial batches grows, so that what returns goes to full ones; but a lane of a few permits is closed most of the time
/// even when it is used evenly, so there the rule starts with the second to return.
fn interval(now: Timestamp, limit: &LimitView) -> Duration {
    let mut before = f64::from(limit.calls(Class::Normal));
    if before < 1.0 && limit.max / limit.cost > FEW_PERMITS {
        return NO_PERMIT;
    }
    let mut slowest = slowness(limit);
    let in_flight = (now + limit.per, limit.in_flight);
    for &(at, n) in limit.returns.iter().chain(std::iter::once(&in_flight)) {
        let calls = f64::from(n) / f64::from(limit.cost);
        let least = before.max(1.0);
        if before + calls > least {
            slowest = slowest.max(at.since(now).as_secs_f64() / least);
        }
        before += calls;
    }
    Duration::try_from_secs_f64(slowest).unwrap_or(NO_PERMIT)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::limit::Correction;
    use crate::model::call::LimitKey;

    const HOUR: Timestamp = Timestamp(3_600_000_000);

    fn at(s: i64) -> Timestamp {
        Timestamp::from_secs(s)
    }

    /// Three of ten are used and come back in an hour.
    fn limit() -> LimitView {
        LimitView {
            key: LimitKey(Arc::from("l")),
            max: 10,
            used: 3,
            in_flight: 0,
            free: 7,
            free_by_class: [7; 3],
            kept_by_class: [0; 3],
            cost: 1,
            per: Duration::from_secs(3_600),
            next_free_at: HOUR,
            blocked_until: None,
            is_probing: false,
            said: None,
            returns: vec![(HOUR, 3)],
        }
    }

    fn opens(limit: &LimitView) -> Timestamp {
        opens_at(limit, Class::Normal)
    }

    #[test]
    fn a_limit_opens_when_what_is_in_the_way_is_over_and_not_when_the_next_permit_returns() {
        assert_eq!(opens(&limit()), Timestamp::ZERO);
        let refused = LimitView { free_by_class: [0; 3], blocked_until: Some(at(1)), ..limit() };
        assert_eq!(opens(&refused), at(1), "seven are free");
        assert_eq!(opens(&LimitView { used: 10, returns: vec![(HOUR, 10)], ..refused.clone() }), HOUR);
        let full = LimitView { free_by_class: [0; 3], in_flight: 7, ..limit() };
        assert_eq!(opens(&full), HOUR);
        assert_eq!(opens(&LimitView { used: 0, in_flight: 10, returns: Vec::new(), ..full }), Timestamp::NEVER);
    }

    #[test]
    fn what_is_said_to_be_left_and_is_on_the_wire_opens_at_the_reset() {
        let said = Some(Correction { left: 2, until: at(60) });
        let limit = LimitView { free_by_class: [0; 3], in_flight: 2, said, ..limit() };
        assert_eq!(opens(&limit), at(60));
    }
}

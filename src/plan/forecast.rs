//! When will it go: the departure of the k-th waiting job, and the end of a backlog. Computed from how the limits stand,
//! not from past speed, and in the same time whatever the backlog.
//!
//! A saturated limit repeats itself: what leaves at x in this window comes back a window after its answer, at x + W + the
//! time that a call takes. So the calls that a limit lets through until t are those free now, plus the used ones that
//! return until t, plus a whole quota per window that has passed; the moment of the m-th call is found without looking at
//! any job. What is kept back for more urgent classes is
//! not counted. Two lanes work side by side, and a limit
//! that both spend counts their sum. Full batches are assumed, since a forecast is asked for when there is a backlog.
//! Must never know: jobs, limiters. Next: `engine/status`.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::limit::LimitView;
use crate::model::call::LimitKey;
use crate::model::flow::Class;

/// One lane of an operation.
#[derive(Clone, Debug, Default)]
pub struct LaneForecast {
    /// What a call of the lane spends.
    pub limits: Vec<LimitView>,
    /// Jobs per call; at least 1.
    pub size: u32,
    /// How long a call takes from its permit to its answer: what a window is longer by, and how often a cap on calls in
    /// flight turns over.
    pub call_time: Duration,
}

/// The answer: when, and what it is that takes so long.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Steady; `NEVER` when it cannot be said: no lane, or a limit that only an answer opens.
    pub at: Timestamp,
    /// The limit that binds; `None` when nothing does.
    pub bound_by: Option<LimitKey>,
}

/// Farther ahead nothing is said.
const HORIZON: Duration = Duration::from_secs(10 * 365 * 86_400);

/// When the `k`-th waiting job leaves at the latest (1: the next one), if the lanes are used as they may be.
/// `class` is that of the job: reserves for more urgent ones are out of its reach.
pub fn departure(now: Timestamp, lanes: &[LaneForecast], class: Class, k: u64) -> Forecast {
    let end = now + HORIZON;
    if k == 0 || lanes.is_empty() {
        return Forecast { at: if k == 0 { now } else { Timestamp::NEVER }, bound_by: None };
    }
    if sent_until(now, lanes, class, now) >= k {
        return Forecast { at: now, bound_by: None };
    }
    if sent_until(now, lanes, class, end) < k {
        return Forecast { at: Timestamp::NEVER, bound_by: binder(now, lanes, class, end) };
    }
    // The number that may leave only grows with time.
    let (mut early, mut late) = (now.0, end.0);
    while late - early > 1 {
        let middle = early + (late - early) / 2;
        if sent_until(now, lanes, class, Timestamp(middle)) >= k { late = middle } else { early = middle }
    }
    Forecast { at: Timestamp(late), bound_by: binder(now, lanes, class, Timestamp(early)) }
}

/// Where a job stands when flows take turns: the jobs that leave before it or with it, itself included.
///
/// `ahead` jobs of its own flow go before it; the others are (ready jobs, weight) of the flows that share its turns, and
/// `weight` is its own.
pub fn position(ahead: u64, weight: u32, others: impl IntoIterator<Item = (u64, u32)>) -> u64 {
    let own = ahead.saturating_add(1);
    let turns = |w: u32| own.saturating_mul(u64::from(w)).div_ceil(u64::from(weight.max(1)));
    others.into_iter().fold(own, |sum, (ready, w)| sum.saturating_add(ready.min(turns(w))))
}

/// Jobs per second that the lanes allow in the long run; `None`: no limit binds.
pub fn rate(lanes: &[LaneForecast], class: Class) -> Option<f64> {
    let mut sum = 0.0;
    for lane in lanes {
        let slowest = lane.limits.iter().filter_map(|l| long_run(l, class, lane.call_time)).min_by(f64::total_cmp)?;
        sum += slowest * f64::from(lane.size.max(1));
    }
    Some(sum)
}

fn long_run(limit: &LimitView, class: Class, call_time: Duration) -> Option<f64> {
    let span = limit.per + call_time;
    (!span.is_zero()).then(|| {
        f64::from(limit.max.saturating_sub(limit.kept_by_class[class as usize]) / limit.cost.max(1))
            / span.as_secs_f64()
    })
}

/// Jobs that may have left until `t`.
fn sent_until(now: Timestamp, lanes: &[LaneForecast], class: Class, t: Timestamp) -> u64 {
    let calls: Vec<u64> = lanes
        .iter()
        .map(|lane| lane.limits.iter().map(|l| calls_until(now, l, class, lane.call_time, t)).min().unwrap_or(u64::MAX))
        .collect();
    // The lane that moves more per call takes first from what both spend.
    let mut order: Vec<usize> = (0..lanes.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lanes[i].size));
    let mut taken = vec![0u64; lanes.len()];
    for (at, &i) in order.iter().enumerate() {
        let mut may = calls[i];
        for limit in &lanes[i].limits {
            let shared = |j: &&usize| lanes[**j].limits.iter().any(|l| l.key == limit.key);
            let before = order[..at].iter().filter(shared).fold(0u64, |sum, &j| sum.saturating_add(taken[j]));
            if before > 0 {
                may = may.min(calls_until(now, limit, class, lanes[i].call_time, t).saturating_sub(before));
            }
        }
        taken[i] = may;
    }
    lanes.iter().zip(taken).fold(0, |sum, (lane, n)| sum.saturating_add(n.saturating_mul(u64::from(lane.size.max(1)))))
}

/// The limit that lets the least through in the lane that moves the most.
fn binder(now: Timestamp, lanes: &[LaneForecast], class: Class, t: Timestamp) -> Option<LimitKey> {
    let least = |lane: &LaneForecast| {
        lane.limits.iter().map(|l| (calls_until(now, l, class, lane.call_time, t), l.key.clone())).min_by_key(|c| c.0)
    };
    let lanes =
        lanes.iter().filter_map(|lane| least(lane).map(|(n, key)| (n.saturating_mul(u64::from(lane.size)), key)));
    lanes.max_by_key(|l| l.0).map(|l| l.1)
}

/// Calls that one limit lets through from now until `t`.
fn calls_until(now: Timestamp, limit: &LimitView, class: Class, call_time: Duration, t: Timestamp) -> u64 {
    let opens_at = limit.blocked_until.unwrap_or(now).max(now);
    if t < opens_at {
        return 0;
    }
    let cost = u64::from(limit.cost.max(1));
    let max = u64::from(limit.max.saturating_sub(limit.kept_by_class[class as usize]));
    let free = max.saturating_sub(u64::from(limit.used)).saturating_sub(u64::from(limit.in_flight));
    if limit.per.is_zero() {
        // A cap on calls in flight: so many per call time.
        let rounds = match call_time.as_micros() {
            0 => return u64::MAX,
            us => u64::try_from(t.since(opens_at).as_micros() / us).unwrap_or(u64::MAX),
        };
        return (free / cost).saturating_add(rounds.saturating_mul(max / cost));
    }
    // Whole windows give whole quotas; the rest of the time repeats the first window.
    let per = (limit.per + call_time).as_micros().max(1);
    let passed = t.since(opens_at).as_micros();
    let windows = u64::try_from(passed / per).unwrap_or(u64::MAX);
    let into = opens_at + Duration::from_micros(u64::try_from(passed % per).unwrap_or(u64::MAX));
    let returned = limit.returns.iter().take_while(|r| r.0 <= into).fold(0u64, |sum, r| sum + u64::from(r.1));
    // What is in flight returns a window after its answer: counted with the whole windows only.
    windows.saturating_mul(max).saturating_add((free + returned).min(max)) / cost
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn limit(name: &str, max: u32, per_s: u64, used: &[(i64, u32)]) -> LimitView {
        let sum: u32 = used.iter().map(|u| u.1).sum();
        LimitView {
            key: LimitKey(Arc::from(name)),
            max,
            used: sum,
            in_flight: 0,
            free: max - sum,
            free_by_class: [max - sum; 3],
            kept_by_class: [0; 3],
            cost: 1,
            per: Duration::from_secs(per_s),
            next_free_at: used.first().map_or(Timestamp::NEVER, |u| Timestamp::from_secs(u.0)),
            blocked_until: None,
            is_probing: false,
            said: None,
            returns: used.iter().map(|&(s, n)| (Timestamp::from_secs(s), n)).collect(),
        }
    }

    fn lane(size: u32, limits: Vec<LimitView>) -> LaneForecast {
        LaneForecast { limits, size, call_time: Duration::ZERO }
    }

    const NOW: Timestamp = Timestamp(1_000_000_000);

    #[test]
    fn the_jobs_of_a_window_leave_now_and_the_next_one_a_window_later() {
        let lanes = [lane(1, vec![limit("crm/core", 5, 60, &[])])];
        assert_eq!(departure(NOW, &lanes, Class::Normal, 5).at, NOW);
        let sixth = departure(NOW, &lanes, Class::Normal, 6);
        assert_eq!(sixth.at, NOW + Duration::from_secs(60));
        assert_eq!(sixth.bound_by.unwrap().0.as_ref(), "crm/core");
        assert_eq!(departure(NOW, &lanes, Class::Normal, 26).at, NOW + Duration::from_secs(300));
    }

    #[test]
    fn a_window_begins_with_the_answers() {
        let call_time = Duration::from_secs(2);
        let lanes = [LaneForecast { call_time, ..lane(1, vec![limit("crm/core", 5, 60, &[])]) }];
        let at = |k| departure(NOW, &lanes, Class::Normal, k).at.since(NOW).as_secs();
        assert_eq!((at(5), at(6), at(26)), (0, 62, 310));
        assert!((rate(&lanes, Class::Normal).unwrap() - 5.0 / 62.0).abs() < 1e-9);
        let mut cap = limit("at-once", 4, 0, &[]);
        cap.in_flight = 4;
        let lanes = [LaneForecast { call_time, ..lane(1, vec![cap]) }];
        let at = |k| departure(NOW, &lanes, Class::Normal, k).at.since(NOW).as_secs();
        assert_eq!((at(1), at(4), at(5)), (2, 2, 4));
    }

    #[test]
    fn used_permits_return_when_the_limiter_says() {
        let lanes = [lane(1, vec![limit("w", 5, 60, &[(1_010, 3), (1_040, 2)])])];
        let at = |k| departure(NOW, &lanes, Class::Normal, k).at;
        assert_eq!((at(1), at(3)), (Timestamp::from_secs(1_010), Timestamp::from_secs(1_010)));
        assert_eq!((at(4), at(5)), (Timestamp::from_secs(1_040), Timestamp::from_secs(1_040)));
        assert_eq!(at(6), Timestamp::from_secs(1_070), "the third window begins like the first");
    }

    #[test]
    fn forty_thousand_updates_need_both_lanes() {
        let both =
            [lane(1_000, vec![limit("batch", 50, 3_600, &[])]), lane(1, vec![limit("single", 3_600, 3_600, &[])])];
        assert_eq!(departure(NOW, &both, Class::Normal, 53_600).at, NOW);
        assert_eq!(departure(NOW, &both, Class::Normal, 53_601).at, NOW + Duration::from_secs(3_600));
        let per_second = rate(&both, Class::Normal).unwrap();
        assert!((per_second - 53_600.0 / 3_600.0).abs() < 0.01, "{per_second}");
    }

    #[test]
    fn a_limit_that_both_lanes_spend_counts_once() {
        let shared = limit("core", 10, 60, &[]);
        let both = [lane(100, vec![shared.clone(), limit("b", 4, 60, &[])]), lane(1, vec![shared])];
        assert_eq!(departure(NOW, &both, Class::Normal, 406).at, NOW, "four batches and six singles");
        assert_eq!(departure(NOW, &both, Class::Normal, 407).at, NOW + Duration::from_secs(60));
    }

    #[test]
    fn turns_put_a_small_flow_before_the_bulk_of_a_large_one() {
        assert_eq!(position(9, 1, [(1_000_000, 1)]), 20);
        assert_eq!(position(9, 1, [(3, 1), (1_000_000, 2)]), 33);
        assert_eq!(position(0, 1, []), 1);
    }

    #[test]
    fn a_blocked_limit_opens_when_the_provider_said() {
        let mut blocked = limit("w", 5, 60, &[]);
        blocked.blocked_until = Some(NOW + Duration::from_secs(30));
        assert_eq!(departure(NOW, &[lane(1, vec![blocked])], Class::Normal, 1).at, NOW + Duration::from_secs(30));
        assert_eq!(
            departure(NOW, &[lane(1, Vec::new())], Class::Normal, 1 << 40),
            Forecast { at: NOW, bound_by: None }
        );
    }

    #[test]
    fn what_is_kept_for_others_is_not_promised() {
        let mut core = limit("core", 10, 60, &[(1_030, 4)]);
        core.kept_by_class = [0, 2, 5];
        let lanes = [lane(1, vec![core])];
        let at = |class, k| departure(NOW, &lanes, class, k).at.since(NOW).as_secs();
        assert_eq!((at(Class::Urgent, 6), at(Class::Urgent, 7)), (0, 30));
        // Two of the six that are free are kept for urgent jobs, five for urgent and normal ones.
        assert_eq!((at(Class::Normal, 4), at(Class::Normal, 5), at(Class::Normal, 8)), (0, 30, 30));
        assert_eq!((at(Class::Bulk, 1), at(Class::Bulk, 2), at(Class::Bulk, 5)), (0, 30, 30));
        // The next windows give what is left of them, each.
        assert_eq!((at(Class::Normal, 9), at(Class::Bulk, 6)), (60, 60));
        assert!((rate(&lanes, Class::Bulk).unwrap() - 5.0 / 60.0).abs() < 1e-9);
        assert_eq!(departure(NOW, &lanes, Class::Bulk, 2).bound_by.unwrap().0.as_ref(), "core");
    }

    #[test]
    fn a_reserve_in_both_lanes_leaves_less_of_both() {
        let reserved = |name, max, kept| {
            let mut limit = limit(name, max, 3_600, &[]);
            limit.kept_by_class = [0, kept, kept];
            limit
        };
        let both = [lane(1_000, vec![reserved("batch", 50, 2)]), lane(1, vec![reserved("single", 3_600, 60)])];
        assert_eq!(departure(NOW, &both, Class::Normal, 48_000 + 3_540).at, NOW);
        assert_eq!(departure(NOW, &both, Class::Normal, 48_000 + 3_541).at, NOW + Duration::from_secs(3_600));
        assert_eq!(departure(NOW, &both, Class::Urgent, 50_000 + 3_600).at, NOW);
    }

    proptest! {
        #[test]
        fn later_jobs_never_leave_earlier_and_a_backlog_takes_as_long_as_its_windows(
            max in 1u32..5_000, per in 1u64..4_000, used in 0u32..5_000, k in 1u64..10_000_000,
        ) {
            let used = used.min(max);
            let back = i64::try_from(1_000 + per / 2 + 1).unwrap();
            let lanes = [lane(1, vec![limit("w", max, per, &[(back, used)])])];
            let (one, more) = (departure(NOW, &lanes, Class::Normal, k), departure(NOW, &lanes, Class::Normal, k + 1));
            prop_assert!(one.at <= more.at);
            let windows = (k - 1) / u64::from(max);
            prop_assume!(windows * per < HORIZON.as_secs() - 2 * per);
            let at = one.at.since(NOW);
            prop_assert!(at >= Duration::from_secs(windows * per) && at <= Duration::from_secs((windows + 1) * per + 1));
        }
    }
}

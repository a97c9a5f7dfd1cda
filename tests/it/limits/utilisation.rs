//! With work waiting, the quota is used: the clumped log against the exact one, and a saturated window in the end.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use tidegate::clock::Timestamp;
use tidegate::limit::State;
use tidegate::model::flow::Class;
use tidegate::model::name::LimitName;
use tidegate::model::provider::{Anchor, Limit, LimitKind, Reserve, Scope};

use super::exact::answered;
use super::guarantee::most_in_any_window;
use super::world::Dice;

fn window(max: u32, per: Duration) -> Limit {
    Limit {
        name: LimitName::new("w").unwrap(),
        kind: LimitKind::Window { max, per, anchor: Anchor::Answer },
        scope: Scope::Provider,
        methods: Vec::new(),
        cost: 1,
        reserve: Reserve::default(),
        not_counted: Vec::new(),
        learned: false,
        cost_from: None,
        headers: None,
    }
}

/// Saturated demand, calls `gap` apart at most (uniform in 1 to 2 gaps), answered at once. Times of the grants.
fn clumped(limit: &Limit, gap_us: i64, horizon: i64, dice: &mut Dice) -> (Vec<i64>, usize) {
    let mut state = State::new(limit);
    let (mut now, mut grants, mut peak) = (1_000_000_000i64, Vec::new(), 0);
    let end = now + horizon;
    while now < end {
        if state.room(limit, Timestamp(now), Class::Bulk, 1) == 0 {
            now = state.denied(limit, Timestamp(now), Class::Bulk, 1).earliest.0;
            continue;
        }
        state.grant(limit, Timestamp(now), 1);
        state.settle(limit, Timestamp(now), answered(limit, Timestamp(now), 1, true));
        peak = peak.max(state.entries());
        grants.push(now);
        now += 1 + (dice.roll() * 2.0 * gap_us as f64) as i64;
    }
    (grants, peak)
}

fn exact(n: u32, w: i64, gap_us: i64, horizon: i64, dice: &mut Dice) -> Vec<i64> {
    let (mut now, mut grants, mut log) = (1_000_000_000i64, Vec::new(), VecDeque::<i64>::new());
    let end = now + horizon;
    while now < end {
        while log.front().is_some_and(|t| t + w <= now) {
            log.pop_front();
        }
        if log.len() >= n as usize {
            now = log[0] + w;
            continue;
        }
        log.push_back(now);
        grants.push(now);
        now += 1 + (dice.roll() * 2.0 * gap_us as f64) as i64;
    }
    grants
}

/// Calls per window in the long run, the first quota left out.
fn rate(grants: &[i64], n: u32, w: i64) -> f64 {
    let n = n as usize;
    let whole = (grants.len() - n - 1) / n;
    whole as f64 * w as f64 / (grants[n + whole * n] - grants[n]) as f64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]
    #[test]
    fn the_clumped_log_uses_at_least_m_of_m_plus_1_of_what_the_exact_log_uses(
        seed in any::<u64>(),
        n in prop_oneof![Just(3u32), Just(10), Just(50), Just(100), Just(400), Just(1_500)],
        speed in prop_oneof![Just(1.05), Just(1.5), Just(3.0), Just(10.0), Just(100.0)],
    ) {
        let w = 60_000_000i64;
        let gap = (w as f64 / f64::from(n) / speed) as i64;
        let limit = window(n, Duration::from_micros(w.unsigned_abs()));
        let (ours, peak) = clumped(&limit, gap, w * 12, &mut Dice(seed));
        let best = exact(n, w, gap, w * 12, &mut Dice(seed));
        let share = rate(&ours, n, w) / rate(&best, n, w);
        prop_assert!(share >= 128.0 / 129.0 - 1e-3, "{} of the exact log", share);
        prop_assert!(most_in_any_window(&ours, w) <= n as usize);
        prop_assert!(peak <= 130 && peak <= n as usize, "{} clumps", peak);
    }
}

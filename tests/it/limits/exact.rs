//! "Come back at `earliest`" is exact for every kind of limit: then it is granted, a microsecond before it is not.

use std::time::Duration;

use proptest::prelude::*;
use tidegate::clock::Timestamp;
use tidegate::limit::State;
use tidegate::limit::state::End;
use tidegate::model::flow::Class;
use tidegate::model::name::LimitName;
use tidegate::model::provider::{Anchor, CalendarPeriod, Limit, LimitKind, Reserve, Scope};

fn kind() -> impl Strategy<Value = LimitKind> {
    let per = prop_oneof![Just(1u64), Just(10), Just(60), Just(3_600)].prop_map(Duration::from_secs);
    let jitter = (0u64..500).prop_map(Duration::from_millis);
    let zones = prop_oneof![Just("UTC"), Just("America/New_York"), Just("Asia/Kolkata")];
    prop_oneof![
        (1u32..40, per.clone()).prop_map(|(max, per)| LimitKind::Window { max, per, anchor: Anchor::Answer }),
        (1u32..40, per.clone(), jitter.clone()).prop_map(|(max, per, jitter)| LimitKind::Window {
            max,
            per,
            anchor: Anchor::Send { jitter }
        }),
        (1u32..40, 1u32..20, per.clone(), jitter.clone())
            .prop_map(|(capacity, refill, per, jitter)| { LimitKind::Bucket { capacity, refill, per, jitter } }),
        (1u32..20).prop_map(|max| LimitKind::Concurrency { max }),
        (1u32..40, 0usize..3, zones).prop_map(|(max, period, zone)| LimitKind::Calendar {
            max,
            period: [CalendarPeriod::Hour, CalendarPeriod::Day, CalendarPeriod::Month][period],
            zone: jiff::tz::TimeZone::get(zone).unwrap(),
        }),
        (1u32..40, per, jitter).prop_map(|(max, per, jitter)| LimitKind::Paced { max, per, jitter }),
    ]
}

pub fn limit() -> impl Strategy<Value = Limit> {
    (kind(), 1u32..4, 0u32..4, 0u32..4).prop_map(|(kind, cost, urgent, normal)| Limit {
        name: LimitName::new("it").unwrap(),
        kind,
        scope: Scope::Provider,
        methods: Vec::new(),
        cost,
        reserve: Reserve { urgent, normal },
        not_counted: Vec::new(),
        learned: false,
        cost_from: None,
        headers: None,
    })
}

/// Calls that were answered well, or never sent.
pub fn answered(limit: &Limit, granted_at: Timestamp, calls: u32, sent: bool) -> End {
    let held = calls * limit.cost;
    End { granted_at, calls, held, spent: if sent { held } else { 0 }, good: sent }
}

#[derive(Clone, Debug)]
enum Step {
    Ask { class: usize, min: u32, max: u32 },
    Settle { which: usize, sent: bool },
    Block { us: i64 },
    Pass { us: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    let us = prop_oneof![0i64..1_000, 0i64..1_000_000, 0i64..100_000_000, 0i64..40_000_000_000];
    prop_oneof![
        6 => (0usize..3, 1u32..4, 0u32..5).prop_map(|(class, min, more)| Step::Ask { class, min, max: min + more }),
        5 => (0usize..64, prop::bool::weighted(0.9)).prop_map(|(which, sent)| Step::Settle { which, sent }),
        1 => (0i64..30_000_000).prop_map(|us| Step::Block { us }),
        5 => us.prop_map(|us| Step::Pass { us }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
    #[test]
    fn at_earliest_a_request_is_granted_and_not_a_microsecond_before(
        limit in limit(), steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut state = State::new(&limit);
        let mut now = Timestamp::from_secs(1_790_000_000);
        let mut open: Vec<(Timestamp, u32)> = Vec::new();
        for step in steps {
            match step {
                Step::Pass { us } => now = now + Duration::from_micros(us.unsigned_abs()),
                Step::Block { us } => state.block(now, now, now + Duration::from_micros(us.unsigned_abs())),
                Step::Settle { which, sent } if !open.is_empty() => {
                    let (granted_at, calls) = open.swap_remove(which % open.len());
                    state.settle(&limit, now, answered(&limit, granted_at, calls, sent));
                }
                Step::Settle { .. } => {}
                Step::Ask { class, min, max } => {
                    let class = Class::ALL[class];
                    let room = state.room(&limit, now, class, min);
                    if room >= min {
                        let calls = room.min(max);
                        state.grant(&limit, now, calls);
                        open.extend((0..calls).map(|_| (now, 1)));
                        continue;
                    }
                    let denied = state.denied(&limit, now, class, min);
                    let room_at = |t: Timestamp| state.clone().room(&limit, t, class, min);
                    if denied.earliest == Timestamp::NEVER {
                        let far = now + Duration::from_secs(86_400 * 400);
                        prop_assert!(room_at(far) < min, "granted although it was said never to be");
                    } else {
                        prop_assert!(denied.earliest > now, "{:?} is not later than {:?}", denied, now);
                        prop_assert!(room_at(denied.earliest) >= min, "not granted at {:?}", denied);
                        let before = Timestamp(denied.earliest.0 - 1);
                        prop_assert!(room_at(before) < min, "granted before {:?}", denied);
                    }
                }
            }
            prop_assert!(state.entries() <= 130, "{} entries", state.entries());
        }
        // What is settled and has aged is as good as new.
        for (granted_at, calls) in open {
            state.settle(&limit, now, answered(&limit, granted_at, calls, true));
        }
        prop_assert!(state.is_idle(&limit, now + Duration::from_secs(86_400 * 400)));
    }
}

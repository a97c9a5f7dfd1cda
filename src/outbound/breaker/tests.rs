//! The breaker's states, one by one and at random.

use proptest::prelude::*;

use super::*;

#[test]
fn an_opening_elsewhere_is_followed_and_so_is_its_end_but_old_news_are_not() {
    let at = |s| Timestamp::from_secs(s);
    let policy = BreakerPolicy::default();
    let (mut here, mut there) = (Breaker::new(policy), Breaker::new(policy));
    for _ in 0..policy.failures_in_a_row {
        there.record(at(10), Class::Bad, false, 0.5, None);
    }
    let opened = there.memory().clone();
    assert!(here.follow(opened.clone()) && matches!(here.state(), State::Open { .. }));
    assert!(!here.follow(opened.clone()), "the same news again");
    for second in [40, 41, 42] {
        there.began(at(second));
        assert!(!here.follow(there.memory().clone()), "a probe is no end");
        there.record(at(second), Class::Good, true, 0.5, None);
    }
    assert_eq!(there.state(), State::Closed);
    assert!(here.follow(there.memory().clone()));
    assert!(here.state() == State::Closed && here.is_ramping(at(43)));
    assert!(!here.follow(opened), "old news");
}

fn at(s: i64) -> Timestamp {
    Timestamp::from_secs(1_000_000 + s)
}

#[test]
fn one_that_only_a_person_can_close_stays_open_and_its_reset_is_followed() {
    let policy = BreakerPolicy::default();
    let (mut here, mut there) = (Breaker::for_credential(policy), Breaker::for_credential(policy));
    let why = "invalid_grant".into();
    assert!(here.open_until_reset(at(1), &why) && !here.open_until_reset(at(2), &why));
    assert!(there.follow(here.memory().clone()));
    let never = Admit::No { until: Timestamp::NEVER };
    assert_eq!((there.admits(at(90_000), 0.0), there.last_error()), (never, Some(&why)));
    here.reset(at(90_001));
    assert!(there.follow(here.memory().clone()));
    assert_eq!((there.admits(at(90_002), 0.999), there.state()), (Admit::Yes, State::Closed));
    assert!(!there.is_idle(at(90_002), Duration::from_secs(60)) && there.is_idle(at(90_061), Duration::from_secs(60)));
}

fn bad(b: &mut Breaker, s: i64) -> bool {
    b.record(at(s), Class::Bad, false, 0.5, Some(&"connection refused".into()))
}

fn opened() -> Breaker {
    let mut b = Breaker::new(BreakerPolicy::default());
    for s in 0..5 {
        bad(&mut b, s);
    }
    b
}

#[test]
fn five_failures_in_a_row_open_it_and_a_good_call_between_starts_the_count_again() {
    let mut b = Breaker::new(BreakerPolicy::default());
    for s in 0..4 {
        assert!(!bad(&mut b, s));
    }
    b.record(at(4), Class::Neutral, false, 0.5, None);
    assert!(bad(&mut b, 4));
    assert_eq!(b.state(), State::Open { until: at(9) });
    assert_eq!(b.admits(at(8), 0.0), Admit::No { until: at(9) });
    // No share opens this one, so only the count in a row is at work.
    let mut b = Breaker::new(BreakerPolicy { failure_share: 2.0, ..BreakerPolicy::default() });
    for s in 0..4 {
        for _ in 0..4 {
            bad(&mut b, s);
        }
        b.record(at(s), Class::Good, false, 0.5, None);
    }
    assert_eq!((b.bad_in_a_row(), b.state()), (0, State::Closed));
}

#[test]
fn half_of_ten_calls_within_the_window_open_it_and_old_ones_are_forgotten() {
    let mut b = Breaker::new(BreakerPolicy::default());
    for s in 0..4 {
        b.record(at(s), Class::Good, false, 0.5, None);
        b.record(at(s), Class::Good, false, 0.5, None);
    }
    // All of the above are out of the window by now.
    for s in 70..74 {
        bad(&mut b, s);
        b.record(at(s), Class::Good, false, 0.5, None);
    }
    assert_eq!(b.state(), State::Closed, "eight calls are fewer than ten");
    bad(&mut b, 74);
    assert!(bad(&mut b, 74));
}

#[test]
fn one_probe_at_a_time_and_three_good_ones_close_it() {
    let mut b = opened();
    assert_eq!(b.admits(at(9), 0.0), Admit::Probe);
    for n in 0..3 {
        b.began(at(10 + n));
        assert!(matches!(b.admits(at(10 + n), 0.0), Admit::No { .. }));
        // A straggler that left before the opening says nothing.
        assert!(!b.record(at(10 + n), Class::Bad, false, 0.5, None));
        b.record(at(10 + n), Class::Good, true, 0.5, None);
    }
    assert_eq!(b.state(), State::Closed);
    assert_eq!(b.admits(at(12), 0.05), Admit::Yes);
    assert!(matches!(b.admits(at(12), 0.5), Admit::No { .. }));
    assert_eq!(b.admits(at(12 + 15), 0.5), Admit::Yes);
    assert_eq!(b.admits(at(12 + 30), 0.999), Admit::Yes);
}

#[test]
fn a_bad_probe_doubles_the_open_time_up_to_its_bound() {
    let mut b = opened();
    let mut now = at(9);
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert_eq!(b.admits(now, 0.0), Admit::Probe);
        b.began(now);
        assert!(b.record(now, Class::Bad, true, 0.5, None));
        let State::Open { until } = b.state() else { panic!("{:?}", b.state()) };
        waits.push(until.since(now).as_secs());
        now = until;
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
}

#[test]
fn a_probe_that_says_nothing_is_tried_again() {
    let mut b = opened();
    b.began(at(9));
    assert!(!b.record(at(9), Class::Neutral, true, 0.5, None));
    assert_eq!(b.admits(at(9), 0.0), Admit::Probe);
}

#[test]
fn a_restart_remembers_that_it_is_open_but_not_the_probe() {
    let mut b = opened();
    b.began(at(9));
    let text = serde_json::to_string(b.memory()).unwrap();
    let again = Breaker::resume(BreakerPolicy::default(), serde_json::from_str(&text).unwrap());
    assert_eq!(again.admits(at(9), 0.0), Admit::Probe);
    assert_eq!(again.memory(), b.memory());
}

#[test]
fn three_refusals_open_the_breaker_of_a_credential_and_failures_of_the_host_do_not() {
    let mut b = Breaker::for_credential(BreakerPolicy::default());
    for s in 0..20 {
        b.record(at(s), Class::for_credential(Health::Failing), false, 0.5, None);
    }
    for s in 0..2 {
        assert!(!b.record(at(s), Class::for_credential(Health::Refusing), false, 0.5, None));
    }
    assert!(b.record(at(3), Class::for_credential(Health::Refusing), false, 0.5, None));
}

proptest! {
    #[test]
    fn it_always_admits_something_in_the_end(ends in proptest::collection::vec((0i64..30, 0u8..3, 0.0f64..1.0), 0..60)) {
        let mut b = Breaker::new(BreakerPolicy::default());
        let mut now = at(0);
        for (gap, class, dice) in ends {
            now = now + Duration::from_secs(gap as u64);
            let class = [Class::Good, Class::Bad, Class::Neutral][class as usize];
            match b.admits(now, dice) {
                Admit::Yes => { b.record(now, class, false, dice, None); }
                Admit::Probe => { b.began(now); b.record(now, class, true, dice, None); }
                Admit::No { until } => prop_assert!(until > now && until.since(now) <= Duration::from_secs(720)),
            }
        }
        let later = now + Duration::from_secs(721);
        let admits = !matches!(b.admits(later, 0.0), Admit::No { .. });
        prop_assert!(admits);
    }
}

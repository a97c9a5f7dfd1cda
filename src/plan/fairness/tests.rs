//! Turns against a naive model that looks at every tenant, and the promises of fair turns one by one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

fn turns(ready: &[(i64, &str, u8, u64)]) -> Turns<u8> {
    let mut t: Turns<u8> = Turns::default();
    for &(flow, name, group, n) in ready {
        t.update(FlowId(flow), &tenant(name), &group, [0, n, 0]);
    }
    t
}

/// Names of the tenants that get the next `n` turns of `each` jobs.
fn served(t: &mut Turns<u8>, n: usize, each: u32) -> Vec<String> {
    let one = |_| {
        let turn = t.next(Timestamp::ZERO).unwrap();
        assert!(!t.share(&turn, Class::Normal, each).is_empty());
        turn.tenant.to_string()
    };
    (0..n).map(one).collect()
}

fn count(of: &[String], name: &str) -> usize {
    of.iter().filter(|t| *t == name).count()
}

fn dealt(shares: &[Share], flow: i64) -> u32 {
    shares.iter().filter(|s| s.flow == FlowId(flow)).map(|s| s.count).sum()
}

#[test]
fn a_hog_takes_turns_with_the_small() {
    let mut t = turns(&[(1, "hog", 0, 1_000_000), (2, "a", 0, 10), (3, "b", 0, 10)]);
    let order = served(&mut t, 30, 1);
    assert_eq!((count(&order, "a"), count(&order, "b")), (10, 10));
}

#[test]
fn a_tenant_of_weight_three_gets_three_turns_to_anothers_one() {
    let mut t = turns(&[(1, "big", 0, 1_000), (2, "small", 0, 1_000)]);
    t.set_weights([(tenant("big"), 3)]);
    let order = served(&mut t, 400, 2);
    assert_eq!((count(&order, "big"), count(&order, "small")), (300, 100));
    let shares = t.fill(&0, 100);
    assert_eq!((dealt(&shares, 1), dealt(&shares, 2)), (75, 25));
    t.set_weights([]);
    let order = served(&mut t, 100, 1);
    assert!((40..=60).contains(&count(&order, "big")), "the new weights hold from now on: {}", count(&order, "big"));
}

#[test]
fn an_idle_tenant_saves_nothing_up_and_leaving_forgives_nothing() {
    let mut t = turns(&[(1, "busy", 0, 1_000), (2, "idle", 0, 1)]);
    served(&mut t, 101, 1);
    t.update(FlowId(2), &tenant("idle"), &0, [0, 100, 0]);
    let order = served(&mut t, 20, 1);
    assert_eq!(count(&order, "idle"), 10, "no more than its turns after a hundred without it: {order:?}");
    // Whoever takes much at once and leaves is not served before the others when it comes back.
    let mut t = turns(&[(1, "a", 0, 50), (2, "b", 0, 1_000)]);
    served(&mut t, 1, 50);
    t.update(FlowId(1), &tenant("a"), &0, [0, 0, 0]);
    t.update(FlowId(1), &tenant("a"), &0, [0, 50, 0]);
    assert_eq!(count(&served(&mut t, 50, 1), "b"), 50);
}

#[test]
fn a_tenant_whose_only_group_was_parked_saves_nothing_up() {
    let mut t = turns(&[(1, "a", 0, 1_000), (2, "b", 1, 1_000)]);
    t.park(&0, Timestamp(50));
    served(&mut t, 100, 1);
    t.unpark(&0);
    let order = served(&mut t, 20, 1);
    assert!(count(&order, "a") <= 11, "its turns, one of them ahead: {order:?}");
}

#[test]
fn a_batch_is_filled_evenly_and_the_rest_goes_to_who_has_more() {
    let mut t = turns(&[(1, "hog", 0, 1_000_000), (2, "a", 0, 10)]);
    let shares = t.fill(&0, 100);
    assert_eq!((dealt(&shares, 2), dealt(&shares, 1)), (10, 90));
}

#[test]
fn the_urgent_class_goes_into_a_batch_first() {
    let mut t: Turns<u8> = Turns::default();
    t.update(FlowId(1), &tenant("a"), &0u8, [0, 50, 0]);
    t.update(FlowId(2), &tenant("b"), &0u8, [5, 50, 0]);
    let shares = t.fill(&0, 5);
    assert_eq!(shares, [Share { flow: FlowId(2), class: Class::Urgent, count: 5 }]);
}

#[test]
fn small_batches_go_round_all_tenants() {
    let mut t: Turns<u8> = Turns::default();
    for n in 0..100 {
        t.update(FlowId(n), &tenant(&n.to_string()), &0u8, [0, 10, 0]);
    }
    let mut got: BTreeMap<FlowId, u32> = BTreeMap::new();
    for _ in 0..50 {
        t.fill(&0, 7).iter().for_each(|s| *got.entry(s.flow).or_default() += s.count);
    }
    assert_eq!(got.len(), 100, "350 records reach all of 100 tenants");
    assert!(got.values().all(|n| (3..=4).contains(n)), "{got:?}");
}

#[test]
fn the_groups_of_a_tenant_take_turns_by_what_they_sent() {
    let mut t = turns(&[(1, "a", 0, 1_000), (2, "a", 1, 1_000)]);
    let mut sent = [0, 0];
    for _ in 0..100 {
        let turn = t.next(Timestamp::ZERO).unwrap();
        // One group sends ten at a time, the other one.
        let n = if turn.group == 0 { 10 } else { 1 };
        t.share(&turn, Class::Normal, n);
        sent[turn.group as usize] += n;
    }
    assert!(sent[0].abs_diff(sent[1]) <= 10, "{sent:?}");
}

#[test]
fn a_parked_group_blocks_nobody_and_comes_back_in_time() {
    let mut t = turns(&[(1, "a", 0, 5), (2, "a", 1, 5), (3, "b", 0, 5)]);
    t.park(&0, Timestamp(50));
    for _ in 0..5 {
        let turn = t.next(Timestamp(10)).unwrap();
        assert_eq!(turn.group, 1);
        t.share(&turn, Class::Normal, 1);
    }
    assert_eq!(t.next(Timestamp(10)), None);
    assert_eq!(t.wake_at(), Timestamp(50));
    // The one who got nothing so far goes first.
    assert_eq!(t.next(Timestamp(50)).unwrap().tenant, tenant("b"));
    t.park(&0, Timestamp(90));
    assert_eq!(t.next(Timestamp(60)), None);
    t.unpark_all();
    assert!(t.next(Timestamp(60)).is_some());
}

#[test]
fn of_those_that_wait_in_one_line_one_is_asked_for_all() {
    let ready: Vec<(i64, String, u8, u64)> = (0..200).map(|n| (n, format!("t{n}"), n as u8, 5)).collect();
    let ready: Vec<_> = ready.iter().map(|(flow, name, group, n)| (*flow, name.as_str(), *group, *n)).collect();
    let mut t = turns(&ready);
    // Whoever has a turn finds the line closed and stands in it.
    t.stand_in(&0, &());
    t.close(&(), Timestamp(50), true);
    while let Some(turn) = t.next(Timestamp(10)) {
        t.stand_in(&turn.group, &());
    }
    assert_eq!((t.wake_at(), t.tenants_ready()), (Timestamp(50), 1));
    let mut asked = 0;
    while let Some(turn) = t.next(Timestamp(50)) {
        if t.closed_until(&()).is_some() {
            t.stand_in(&turn.group, &());
            continue;
        }
        asked += 1;
        if asked < 4 {
            assert_eq!(t.tenants_ready(), 200, "all of them are behind this one");
            t.share(&turn, Class::Normal, 1);
        } else {
            t.stand_in(&turn.group, &());
            t.close(&(), Timestamp(90), true);
        }
        assert!(asked < 10, "{asked} questions for 3 permits");
    }
    assert_eq!((asked, t.wake_at()), (4, Timestamp(90)));
    t.open_soft();
    assert!(t.next(Timestamp(60)).is_some());
}

#[test]
fn a_line_calls_first_whoever_got_least() {
    let mut t = turns(&[(1, "hog", 0, 100), (2, "small", 1, 100), (3, "other", 2, 100)]);
    for _ in 0..30 {
        let turn = t.next(Timestamp(0)).unwrap();
        t.share(&turn, Class::Normal, if turn.tenant == tenant("hog") { 10 } else { 1 });
    }
    for group in [0, 1, 2] {
        t.stand_in(&group, &());
    }
    t.close(&(), Timestamp(50), false);
    assert_eq!(t.next(Timestamp(10)), None);
    let order: Vec<_> = (0..6)
        .map(|_| {
            let turn = t.next(Timestamp(50)).unwrap();
            t.share(&turn, Class::Normal, 1);
            turn.tenant
        })
        .collect();
    assert!(order.iter().filter(|name| **name == tenant("hog")).count() <= 2, "{order:?}");
}

#[test]
fn an_open_line_calls_one_group_at_a_time_though_its_tenant_has_turns() {
    let mut t = Turns::default();
    for n in 0..50u8 {
        t.update(FlowId(i64::from(n)), &tenant("a"), &n, [0, 10, 0]);
    }
    for n in 1..50 {
        t.stand_in(&n, &());
    }
    t.close(&(), Timestamp(10), false);
    assert_eq!(t.next(Timestamp(0)).unwrap().group, 0);
    let mut of_line = 0;
    for _ in 0..20 {
        let turn = t.next(Timestamp(10)).unwrap();
        of_line += usize::from(turn.group != 0);
        t.share(&turn, Class::Normal, 1);
        let out = (1..50).filter(|n| t.line_of(n).is_none()).count();
        assert!(out <= of_line + 1, "{out} were called, {of_line} had a turn");
    }
    assert!(of_line >= 15, "its groups have turns beside the one that did not wait: {of_line}");
}

/// What the turns promise, by looking at everybody.
#[derive(Default)]
struct Naive {
    ready: BTreeMap<i64, u64>,
    at: [u64; 4],
    eligible: [bool; 4],
    weights: [u32; 4],
    parked: [i64; 3],
    /// The line in which a group stands.
    line: [Option<u8>; 3],
    closed: [i64; 2],
    /// The line that called the group.
    called_by: [Option<u8>; 3],
    present: u64,
    now: i64,
}

/// Flow f belongs to tenant f % 4 and group f % 3 always.
impl Naive {
    fn look(&mut self) {
        for t in 0..4 {
            let free = |g: usize| {
                self.parked[g] <= self.now && self.line[g].is_none_or(|line| self.closed[usize::from(line)] <= self.now)
            };
            let open = |(f, n): (&i64, &u64)| f % 4 == t as i64 && *n > 0 && free((f % 3) as usize);
            let eligible = self.ready.iter().any(open);
            if eligible && !self.eligible[t] {
                self.at[t] = self.at[t].max(self.present);
            }
            self.eligible[t] = eligible;
        }
    }

    fn leave(&mut self, group: usize) {
        self.parked[group] = 0;
        let Some(line) = self.line[group].take() else { return };
        if !self.line.contains(&Some(line)) {
            self.closed[usize::from(line)] = 0;
        }
    }

    fn stand_in(&mut self, group: usize, line: u8) {
        if self.line[group] != Some(line) {
            self.leave(group);
            self.line[group] = Some(line);
        }
    }

    /// An open line may have called a group, and a group that was called goes back when its tenant got something elsewhere.
    fn follow(&mut self, turns: &Turns<u8, u8>) {
        for group in 0..3 {
            match (self.line[group], turns.line_of(&(group as u8)).copied()) {
                (known, is) if known == is => {}
                (Some(line), None) => {
                    assert!(self.closed[usize::from(line)] <= self.now, "a closed line calls nobody");
                    self.leave(group);
                    self.called_by[group] = Some(line);
                }
                (known, is) => {
                    assert_eq!((known, is), (None, self.called_by[group]), "back where it was");
                    self.line[group] = is;
                }
            }
        }
        self.look();
    }

    /// When the first of those that wait may go.
    fn wake_at(&self) -> Timestamp {
        let of = |(f, _): (&i64, &u64)| {
            let group = (f % 3) as usize;
            let line = self.line[group].map_or(0, |line| self.closed[usize::from(line)]);
            Timestamp(self.parked[group].max(line))
        };
        self.ready.iter().filter(|(_, n)| **n > 0).map(of).min().unwrap_or(Timestamp::NEVER)
    }

    fn smallest(&self) -> Option<u64> {
        (0..4).filter(|t| self.eligible[*t]).map(|t| self.at[t]).min()
    }

    fn take(&mut self, shares: &[Share]) {
        let mut cost = [0; 4];
        for s in shares {
            *self.ready.get_mut(&s.flow.0).unwrap() -= u64::from(s.count);
            cost[(s.flow.0 % 4) as usize] += u64::from(s.count);
        }
        for (t, cost) in cost.into_iter().enumerate() {
            if cost > 0 {
                self.at[t] = self.at[t].max(self.present) + shelf::span(cost, self.weights[t]);
            }
        }
        self.look();
    }
}

proptest! {
    /// Whatever happens, `next` finds somebody exactly when an unparked group has ready jobs, and it is one of those
    /// that got least by its weight; shares never exceed what is ready.
    #[test]
    fn turns_are_those_of_a_model_that_looks_at_everybody(
        steps in proptest::collection::vec((0u8..10, 0i64..24, 0u64..5, 0i64..100), 1..300),
        weights in [1u32..5, 1..5, 1..5, 1..5],
    ) {
        let name = |t: usize| tenant(&t.to_string());
        let mut t: Turns<u8, u8> = Turns::default();
        t.set_weights((0..4).map(|i| (name(i), weights[i])));
        let mut naive = Naive { weights, ..Naive::default() };
        for (what, flow, n, time) in steps {
            match what {
                0 | 1 => {
                    t.update(FlowId(flow), &name((flow % 4) as usize), &((flow % 3) as u8), [0, n, 0]);
                    naive.ready.insert(flow, n);
                    // A group that is told to have no work forgets that it was parked.
                    if !naive.ready.iter().any(|(f, n)| f % 3 == flow % 3 && *n > 0) {
                        naive.leave((flow % 3) as usize);
                    }
                }
                2 => {
                    let group = (flow % 3) as u8;
                    let has_work = naive.ready.iter().any(|(f, n)| f % 3 == i64::from(group) && *n > 0);
                    if has_work {
                        naive.leave(usize::from(group));
                        t.park(&group, Timestamp(naive.now + 1 + time));
                        naive.parked[usize::from(group)] = naive.now + 1 + time;
                    }
                }
                3 => {
                    let group = (flow % 3) as u8;
                    t.unpark(&group);
                    naive.leave(usize::from(group));
                }
                4 => {
                    let group = (flow % 3) as u8;
                    let shares = t.fill(&group, n as u32 * 3);
                    let has: u64 = naive.ready.iter().filter(|(f, _)| *f % 3 == i64::from(group)).map(|(_, n)| n).sum();
                    prop_assert_eq!(shares.iter().map(|s| u64::from(s.count)).sum::<u64>(), has.min(n * 3));
                    naive.take(&shares);
                    naive.follow(&t);
                }
                5 => {
                    let (group, line) = ((flow % 3) as u8, (n % 2) as u8);
                    if naive.ready.iter().any(|(f, n)| f % 3 == i64::from(group) && *n > 0) {
                        naive.stand_in(usize::from(group), line);
                        t.stand_in(&group, &line);
                        if time % 4 > 0 {
                            t.close(&line, Timestamp(naive.now + 1 + time), time % 2 == 0);
                            naive.closed[usize::from(line)] = naive.now + 1 + time;
                        }
                    }
                }
                6 => {
                    let (from, to) = ((n % 2) as u8, (time % 2) as u8);
                    if from <= to {
                        t.open_between(&from, &to);
                    }
                    (from..=to).for_each(|line| naive.closed[usize::from(line)] = 0);
                }
                _ => {
                    naive.now += time / 4;
                    naive.look();
                    for _ in 0..=n {
                        let turn = t.next(Timestamp(naive.now));
                        prop_assert_eq!(turn.is_some(), naive.smallest().is_some());
                        let Some(turn) = turn else {
                            // Whoever waits is looked at again in time.
                            prop_assert!(t.wake_at() <= naive.wake_at(), "{:?} {:?}", t.wake_at(), naive.wake_at());
                            break;
                        };
                        prop_assert!(!t.is_parked(&turn.group));
                        naive.follow(&t);
                        let of: usize = turn.tenant.as_str().parse().unwrap();
                        prop_assert_eq!(Some(naive.at[of]), naive.smallest(), "tenant {} is not the first", of);
                        naive.present = naive.present.max(naive.at[of]);
                        if flow % 3 == 0 {
                            // The limit refuses, and closes the line for all.
                            let line = (n % 2) as u8;
                            naive.stand_in(usize::from(turn.group), line);
                            naive.closed[usize::from(line)] = naive.now + 1 + time;
                            t.stand_in(&turn.group, &line);
                            t.close(&line, Timestamp(naive.now + 1 + time), true);
                            naive.look();
                            continue;
                        }
                        let shares = t.share(&turn, Class::Normal, 2);
                        prop_assert!(!shares.is_empty());
                        prop_assert!(shares.iter().all(|s| s.flow.0 % 4 == of as i64));
                        naive.take(&shares);
                        naive.follow(&t);
                    }
                }
            }
            naive.look();
        }
    }

    #[test]
    fn a_batch_is_shared_out_by_weight(
        ready in proptest::collection::vec((0u64..50, 1u32..6), 1..20), size in 1u32..200,
    ) {
        let name = |i: usize| tenant(&i.to_string());
        let mut t: Turns<u8> = Turns::default();
        t.set_weights(ready.iter().enumerate().map(|(i, r)| (name(i), r.1)));
        for (i, (n, _)) in ready.iter().enumerate() {
            t.update(FlowId(i as i64), &name(i), &0, [0, *n, 0]);
        }
        let shares = t.fill(&0, size);
        let all: u64 = ready.iter().map(|r| r.0).sum();
        prop_assert_eq!(shares.iter().map(|s| u64::from(s.count)).sum::<u64>(), all.min(u64::from(size)));
        let weights: u64 = ready.iter().filter(|r| r.0 > 0).map(|r| u64::from(r.1)).sum();
        for (i, (n, weight)) in ready.iter().enumerate() {
            let fair = (u64::from(size) / weights.max(1) * u64::from(*weight)).min(*n);
            let got = u64::from(dealt(&shares, i as i64));
            prop_assert!(got >= fair, "tenant {} got {} of {}", i, got, fair);
        }
    }
}

//! A number that nobody publishes, learned from refusals: off until the first, then less by three tenths with each, and slowly
//! more while it binds and nobody refuses.
//!
//! After the adaptive mode of the AWS SDKs (reference/rate-limiting.md, section 6): x 0.7, the number at which it was
//! refused is remembered, growth slows down before it. Slower than there, because here a refusal is to be rare: a
//! hundredth of the number per window of the limit, a thousandth within a tenth of what was refused. It never grows
//! above what is declared, nor where less is sent than it allows. Calls that were granted before the last step are part
//! of it, so a burst of refusals is one. And it never sinks below seven tenths of what the window counts at that time:
//! until that has aged the provider goes on refusing, which is no news. Must never know: which answers are refusals, keys. Next: `engine/gate/learned.rs`.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::model::provider::{Limit, LimitKind};

/// Fractions of a permit that growth is counted in, so that small numbers grow too.
const PARTS: u64 = 1_000;

/// Times are steady.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// In thousandths of a permit.
    parts: u64,
    /// The number that was in force when it was refused last.
    pub refused_at_max: u32,
    cut_at: Timestamp,
    /// It grows no sooner than a window after this: the last growth, or the end of a refusal.
    grown_at: Timestamp,
}

impl Learned {
    /// The first refusal, of a call that was granted under the declared number while the window counted `used` permits.
    pub fn first(limit: &Limit, used: u32, now: Timestamp, until: Timestamp) -> Option<Self> {
        let (declared, _) = number(&limit.kind)?;
        let mut learned = Learned {
            parts: u64::from(declared) * PARTS,
            refused_at_max: declared,
            cut_at: Timestamp::ZERO,
            grown_at: Timestamp::ZERO,
        };
        learned.cut(limit, used);
        (learned.cut_at, learned.grown_at) = (now, now.max(until));
        Some(learned)
    }

    /// A call granted at `granted_at` was refused while the window counted `used` permits, and no more is to be had before
    /// `until`. True: it has sunk.
    pub fn refused(
        &mut self,
        limit: &Limit,
        used: u32,
        granted_at: Timestamp,
        now: Timestamp,
        until: Timestamp,
    ) -> bool {
        self.grown_at = self.grown_at.max(now).max(until);
        if granted_at <= self.cut_at {
            return false;
        }
        self.cut_at = now;
        self.cut(limit, used)
    }

    /// There is more to send than it allows. True: it has grown.
    pub fn pressed(&mut self, limit: &Limit, now: Timestamp) -> bool {
        let Some((declared, per)) = number(&limit.kind) else { return false };
        let most = u64::from(declared) * PARTS;
        if now < self.grown_at + per || self.parts >= most {
            return false;
        }
        let refused = u64::from(self.refused_at_max) * PARTS;
        let is_near = (refused - refused / 10..refused).contains(&self.parts);
        let step = if is_near { self.parts / 1_000 } else { self.parts / 100 };
        self.parts = (self.parts + step.max(1)).min(most);
        self.grown_at = now;
        true
    }

    /// Takes over what another daemon learned from a later refusal.
    pub fn follow(&mut self, other: Learned) {
        if other.cut_at > self.cut_at {
            *self = other;
        }
    }

    /// The limit with the number in force.
    pub fn apply(&self, limit: &Limit) -> Arc<Limit> {
        let mut limit = limit.clone();
        let most = self.max(&limit);
        if let LimitKind::Window { max, .. } | LimitKind::Paced { max, .. } = &mut limit.kind {
            *max = most;
        }
        Arc::new(limit)
    }

    /// The number in force under a declaration, which may have changed.
    pub fn max(&self, limit: &Limit) -> u32 {
        let declared = number(&limit.kind).map_or(u32::MAX, |(max, _)| max);
        let learned = u32::try_from(self.parts / PARTS).unwrap_or(u32::MAX);
        learned.max(least(limit)).min(declared)
    }

    /// When it was refused last.
    pub fn cut_at(&self) -> Timestamp {
        self.cut_at
    }

    fn cut(&mut self, limit: &Limit, used: u32) -> bool {
        let in_force = self.max(limit);
        let less = |number: u32| u64::from(number) * PARTS * 7 / 10;
        // From the number in force: what stands below the least that makes sense must not sink without an end.
        let parts = less(in_force.max(used)).max(u64::from(least(limit)) * PARTS);
        if parts >= self.parts.min(u64::from(in_force) * PARTS) {
            return false;
        }
        (self.parts, self.refused_at_max) = (parts, in_force);
        true
    }
}

/// The number that is learned, and over which time; `None` for kinds of limits that are not.
pub fn number(kind: &LimitKind) -> Option<(u32, Duration)> {
    match kind {
        LimitKind::Window { max, per, .. } | LimitKind::Paced { max, per, .. } => Some((*max, *per)),
        _ => None,
    }
}

/// With less no bulk job could ever leave. A paced limit has an interval from 2 on.
fn least(limit: &Limit) -> u32 {
    let kept = limit.reserve.urgent.saturating_add(limit.reserve.normal);
    let paced = if matches!(limit.kind, LimitKind::Paced { .. }) { 2 } else { 1 };
    kept.saturating_add(limit.cost.max(1)).max(paced)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::name::LimitName;
    use crate::model::provider::{Anchor, Reserve, Scope};

    const PER: Duration = Duration::from_secs(10);

    fn limit(max: u32) -> Limit {
        Limit {
            name: LimitName::new("app").unwrap(),
            kind: LimitKind::Window { max, per: PER, anchor: Anchor::Answer },
            scope: Scope::Provider,
            methods: Vec::new(),
            cost: 1,
            reserve: Reserve::default(),
            not_counted: Vec::new(),
            headers: None,
            learned: true,
        }
    }

    fn at(s: i64) -> Timestamp {
        Timestamp::from_secs(s)
    }

    #[test]
    fn a_burst_of_refusals_is_one_step_and_the_next_one_another() {
        let limit = limit(1_000);
        let mut learned = Learned::first(&limit, 0, at(10), at(11)).unwrap();
        assert_eq!(learned.max(&limit), 700);
        assert!(!learned.refused(&limit, 0, at(10), at(12), at(13)), "granted before the step");
        assert_eq!(learned.max(&limit), 700);
        assert!(learned.refused(&limit, 0, at(14), at(15), at(16)));
        assert_eq!((learned.max(&limit), learned.refused_at_max), (490, 700));
    }

    #[test]
    fn while_the_window_is_full_refusals_are_no_news() {
        let limit = limit(100);
        let mut learned = Learned::first(&limit, 60, at(0), at(1)).unwrap();
        for s in 1..9 {
            learned.refused(&limit, 60, at(2 * s), at(2 * s + 1), at(0));
        }
        assert_eq!((learned.max(&limit), learned.refused_at_max), (42, 49), "of 60 that were let through");
        assert!(learned.refused(&limit, 30, at(40), at(41), at(0)), "the provider allows less by now");
        assert_eq!(learned.max(&limit), 29);
    }

    #[test]
    fn it_grows_once_a_window_while_it_binds_and_slower_near_what_was_refused() {
        let limit = limit(1_000);
        let mut learned = Learned::first(&limit, 0, at(0), at(100)).unwrap();
        assert!(!learned.pressed(&limit, at(109)), "not within a window after the end of the refusal");
        assert!(learned.pressed(&limit, at(110)) && !learned.pressed(&limit, at(119)));
        assert_eq!(learned.max(&limit), 707);
        let (mut now, mut steps) = (at(120), 0);
        while learned.max(&limit) < 900 {
            assert!(learned.pressed(&limit, now));
            (now, steps) = (now + PER, steps + 1);
        }
        assert!((20..30).contains(&steps), "{steps}");
        let near = learned.parts;
        assert!(learned.pressed(&limit, now));
        assert_eq!(learned.parts - near, near / 1_000);
    }

    #[test]
    fn a_lowered_declaration_counts_at_once_and_a_reserve_stays_usable() {
        let mut learned = Learned::first(&limit(1_000), 0, at(0), at(0)).unwrap();
        assert_eq!(learned.max(&limit(50)), 50);
        let reserved = Limit { reserve: Reserve { urgent: 3, normal: 4 }, cost: 2, ..limit(20) };
        for n in 1..50 {
            learned.refused(&reserved, 0, at(n * 2), at(n * 2 + 1), at(0));
        }
        assert_eq!(learned.max(&reserved), 9);
        let LimitKind::Window { max, .. } = learned.apply(&reserved).kind else { panic!("still a window") };
        assert_eq!(max, 9);
    }

    proptest! {
        #[test]
        fn it_is_never_outside_of_what_makes_sense_and_grows_by_a_hundredth_at_most(
            declared in 1u32..5_000,
            steps in prop::collection::vec((any::<bool>(), 0u32..6_000, 0i64..30, 0i64..60), 1..200),
        ) {
            let limit = limit(declared);
            let mut now = at(0);
            let mut learned = Learned::first(&limit, 0, now, now).unwrap();
            for (refused, used, pass, ago) in steps {
                now = now + Duration::from_secs(pass as u64);
                let before = learned.parts;
                if refused {
                    learned.refused(&limit, used, now - Duration::from_secs(ago as u64), now, now);
                    prop_assert!(learned.parts <= before);
                } else {
                    learned.pressed(&limit, now);
                    prop_assert!(learned.parts <= before + (before / 100).max(1));
                }
                prop_assert!((1..=declared).contains(&learned.max(&limit)));
            }
        }

        #[test]
        fn before_a_provider_with_a_number_of_its_own_it_is_found_in_few_steps_and_mostly_used(
            declared in 20u32..5_000,
            share in 0.02f64..1.0,
        ) {
            let limit = limit(declared);
            let own = ((f64::from(declared) * share) as u32).max(10);
            // It refuses as soon as more than its own number are sent in a window, all of which we want to.
            let (mut learned, mut cuts, mut found, mut used, mut windows) = (None::<Learned>, 0, 0, 0.0, 0);
            for n in 0..2_000 {
                let now = at(n * 20);
                let max = learned.as_ref().map_or(declared, |l| l.max(&limit));
                if max > own {
                    cuts += 1;
                    match &mut learned {
                        Some(learned) => {
                            let later = now + Duration::from_secs(1);
                            prop_assert!(learned.refused(&limit, own + 1, now, later, later), "{max} of {own}");
                        }
                        none => *none = Learned::first(&limit, own + 1, now, now),
                    }
                } else {
                    if found == 0 {
                        found = cuts;
                    }
                    windows += 1;
                    used += f64::from(max) / f64::from(own);
                    if let Some(learned) = &mut learned {
                        learned.pressed(&limit, now);
                    }
                    prop_assert!(max + 1 >= own * 7 / 10, "{max} of {own}");
                }
            }
            let needed = (f64::from(own) / f64::from(declared)).ln() / 0.7f64.ln();
            prop_assert!(f64::from(found) <= needed.ceil() + 1.0, "{found} steps to {own} of {declared}");
            prop_assert!(used / f64::from(windows) > 0.75, "{} of {own} used", used / f64::from(windows));
            prop_assert!(cuts - found <= 2_000 / 25, "{cuts} refusals in 2,000 windows");
        }
    }
}

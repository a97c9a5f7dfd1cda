//! Alerts: what is watched of a provider, and when somebody is told that it is amiss, still amiss, or well again. Pure.
//!
//! Must never know: where facts come from, who is told. Next: `engine/alerts`, which looks; `model/notify`, who hears.

use std::collections::VecDeque;
use std::time::Duration;

use super::name::{AlertName, LimitName, OperationName, ProviderName};
use crate::clock::Timestamp;

/// Samples kept of one counter: its window is known to a hundredth.
const SAMPLES_MAX: usize = 128;

#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub name: AlertName,
    pub provider: ProviderName,
    pub watch: Watch,
    /// What is watched must be amiss for so long.
    pub hold: Duration,
    /// Told again so often while it lasts; `None`: never.
    pub repeat: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Watch {
    /// So many jobs died within the time, of one operation or of all.
    Failures { operation: Option<OperationName>, dead: u64, within: Duration },
    /// The oldest job that could leave is older.
    Oldest { age: Duration },
    /// The breaker is not closed.
    Breaker,
    /// Less than this share of a limit is left.
    Quota { limit: LimitName, left_below: f64 },
}

/// An alert that was raised and is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    pub name: AlertName,
    pub provider: ProviderName,
    /// Wall time, as `told_at`.
    pub raised_at: Timestamp,
    pub told_at: Timestamp,
    /// One sentence.
    pub detail: String,
}

impl Raised {
    /// As it stands once it has been told at `now`.
    pub fn told(rule: &Rule, known: Option<&Raised>, detail: String, now: Timestamp) -> Raised {
        Raised {
            name: rule.name.clone(),
            provider: rule.provider.clone(),
            raised_at: known.map_or(now, |known| known.raised_at),
            told_at: now,
            detail,
        }
    }
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is amiss: one sentence.
    Amiss(String),
    Well,
    /// Not known yet, as after a start.
    CannotSay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Raise,
    Repeat,
    Clear,
}

impl Step {
    pub fn name(self) -> &'static str {
        match self {
            Step::Raise => "raised",
            Step::Repeat => "repeated",
            Step::Clear => "cleared",
        }
    }
}

/// What is to be told now. `lasted`: how long it has been amiss; `now`: wall time.
pub fn decide(rule: &Rule, seen: &Seen, lasted: Duration, raised: Option<&Raised>, now: Timestamp) -> Option<Step> {
    match (seen, raised) {
        (Seen::Amiss(_), None) => (lasted >= rule.hold).then_some(Step::Raise),
        (Seen::Amiss(_), Some(raised)) => {
            rule.repeat.filter(|repeat| now.since(raised.told_at) >= *repeat).map(|_| Step::Repeat)
        }
        (Seen::Well, Some(_)) => Some(Step::Clear),
        (Seen::Well, None) | (Seen::CannotSay, _) => None,
    }
}

/// How much a counter grew within a time, from a bounded number of looks at it.
#[derive(Clone, Debug, Default)]
pub struct Growth(VecDeque<(Timestamp, u64)>);

impl Growth {
    /// Notes the counter and answers how much it grew within the time; the flag says whether the looks reach back so far.
    pub fn look(&mut self, now: Timestamp, count: u64, within: Duration) -> (u64, bool) {
        let step = within / SAMPLES_MAX as u32;
        // Only the newest before the time is needed of all those before it.
        while self.0.get(1).is_some_and(|(at, _)| now.since(*at) >= within) {
            self.0.pop_front();
        }
        if self.0.back().is_none_or(|(at, _)| now.since(*at) >= step) && self.0.len() <= SAMPLES_MAX {
            self.0.push_back((now, count));
        }
        let (from, before) = self.0.front().copied().unwrap_or((now, count));
        (count.saturating_sub(before), now.since(from) >= within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(s: i64) -> Timestamp {
        Timestamp::from_secs(1_000 + s)
    }

    #[test]
    fn it_is_raised_once_it_lasted_told_again_as_asked_and_cleared_when_it_is_known_to_be_well() {
        let mut rule = Rule {
            name: AlertName::new("a").unwrap(),
            provider: ProviderName::new("crm").unwrap(),
            watch: Watch::Breaker,
            hold: MINUTE,
            repeat: None,
        };
        let raised = Raised {
            name: rule.name.clone(),
            provider: rule.provider.clone(),
            raised_at: at(0),
            told_at: at(0),
            detail: String::new(),
        };
        let amiss = Seen::Amiss("open".into());
        assert_eq!(decide(&rule, &amiss, MINUTE - Duration::from_secs(1), None, at(0)), None);
        assert_eq!(decide(&rule, &amiss, MINUTE, None, at(0)), Some(Step::Raise));
        assert_eq!(decide(&rule, &amiss, MINUTE * 99, Some(&raised), at(9_999)), None, "told once");
        rule.repeat = Some(MINUTE);
        assert_eq!(decide(&rule, &amiss, MINUTE * 9, Some(&raised), at(59)), None);
        assert_eq!(decide(&rule, &amiss, MINUTE * 9, Some(&raised), at(60)), Some(Step::Repeat));
        // The next repeat is counted from this one, and it is raised since it was raised first.
        let again = Raised::told(&rule, Some(&raised), "open".into(), at(60));
        assert_eq!((again.raised_at, again.told_at), (at(0), at(60)));
        assert_eq!(decide(&rule, &amiss, MINUTE * 9, Some(&again), at(119)), None);
        assert_eq!(decide(&rule, &amiss, MINUTE * 9, Some(&again), at(120)), Some(Step::Repeat));
        assert_eq!(decide(&rule, &Seen::CannotSay, Duration::ZERO, Some(&raised), at(60)), None);
        assert_eq!(decide(&rule, &Seen::Well, Duration::ZERO, Some(&raised), at(1)), Some(Step::Clear));
        assert_eq!(decide(&rule, &Seen::Well, Duration::ZERO, None, at(1)), None);
    }

    #[test]
    fn growth_is_that_of_the_window_from_few_looks() {
        let mut growth = Growth::default();
        assert_eq!(growth.look(at(0), 7, MINUTE), (0, false));
        for second in 1..=600 {
            // One more each second from the hundredth on.
            let count = 7 + u64::try_from(second - 100).unwrap_or(0);
            let (grown, known) = growth.look(at(second), count, MINUTE);
            let exact = u64::try_from((second - 100).clamp(0, 60)).unwrap_or(0);
            assert!(grown.abs_diff(exact) <= 1, "{second}: {grown}");
            assert_eq!(known, second >= 60);
            assert!(growth.0.len() <= SAMPLES_MAX + 1);
        }
        // Dead jobs that were brought back make no debt.
        assert_eq!(growth.look(at(601), 3, MINUTE).0, 0);
    }
}

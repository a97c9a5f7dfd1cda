//! The states of a job and the ONE table that says how a job moves between them.
//!
//! Every store accepts exactly what this table accepts; the conformance suite tries every (state, event) pair, and
//! `tests/tidy.rs` compares the diagram in docs/guarantees.md with it.

use std::fmt;

/// Where a job is. Why a `waiting` job waits is derived, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum State {
    /// Has work left and is not on the wire. The gate moves it to `calling`.
    Waiting = 0,
    /// Part of a journaled call. The caller's outcome moves it on; if the caller died, the sweeper does.
    Calling = 1,
    /// The provider took it. Final.
    Delivered = 2,
    /// Gave up: rejected, out of attempts, or poison. A person moves it back with `retry`.
    Dead = 3,
    /// Called off before it was delivered. Final.
    Cancelled = 4,
    /// Sent, but the answer was lost, and repeating is not declared safe. A person decides with `resolve`.
    Unknown = 5,
}

/// What happens to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A call that carries the job was journaled.
    Begin,
    /// The provider took it.
    Deliver,
    /// Failed in a way that may pass: again at a later `due_at`.
    Retry,
    /// The provider said "not now" (429 and the like): again without using up an attempt.
    Throttle,
    /// Will never succeed, or has no attempts left.
    Die,
    /// The answer was lost and the call may have taken effect.
    Lose,
    /// Called off.
    Cancel,
    /// A newer change of the same key took the job's place in the queue.
    Coalesce,
    /// A person changed payload, priority or due time.
    Edit,
    /// A person brought a dead job back.
    Revive,
    /// A person decided that a lost call did happen.
    ResolveDelivered,
    /// A person decided that a lost call is to be sent again.
    ResolveAgain,
    /// A person gave a lost call up.
    ResolveDead,
}

impl State {
    pub const ALL: [State; 6] =
        [State::Waiting, State::Calling, State::Delivered, State::Dead, State::Cancelled, State::Unknown];

    /// The transition table. `None`: the event is refused in this state.
    pub fn on(self, event: Event) -> Option<State> {
        use Event::*;
        use State::*;
        match (self, event) {
            (Waiting, Begin) => Some(Calling),
            (Waiting, Coalesce | Edit) => Some(Waiting),
            (Waiting, Cancel) => Some(Cancelled),
            (Calling, Deliver) => Some(Delivered),
            (Calling, Retry | Throttle) => Some(Waiting),
            (Calling, Die) => Some(Dead),
            (Calling, Lose) => Some(Unknown),
            // A job that was called off while on the wire and then not delivered is not tried again.
            (Calling, Cancel) => Some(Cancelled),
            (Dead, Revive) => Some(Waiting),
            (Unknown, ResolveDelivered) => Some(Delivered),
            (Unknown, ResolveAgain) => Some(Waiting),
            (Unknown, ResolveDead) => Some(Dead),
            (Unknown, Cancel) => Some(Cancelled),
            _ => None,
        }
    }

    /// True when nothing more happens by itself and later jobs of the key may go. `unknown` is not final: until
    /// somebody decides, sending a later job of the key could overtake a repeat of this one.
    pub fn is_final(self) -> bool {
        matches!(self, State::Delivered | State::Dead | State::Cancelled)
    }

    pub fn name(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Calling => "calling",
            State::Delivered => "delivered",
            State::Dead => "dead",
            State::Cancelled => "cancelled",
            State::Unknown => "unknown",
        }
    }

    pub fn from_name(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|s| s.name() == name)
    }

    pub fn from_u8(n: u8) -> Option<State> {
        State::ALL.into_iter().find(|&s| s as u8 == n)
    }
}

impl Event {
    pub const ALL: [Event; 13] = [
        Event::Begin,
        Event::Deliver,
        Event::Retry,
        Event::Throttle,
        Event::Die,
        Event::Lose,
        Event::Cancel,
        Event::Coalesce,
        Event::Edit,
        Event::Revive,
        Event::ResolveDelivered,
        Event::ResolveAgain,
        Event::ResolveDead,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Event::Begin => "begin",
            Event::Deliver => "deliver",
            Event::Retry => "retry",
            Event::Throttle => "throttle",
            Event::Die => "die",
            Event::Lose => "lose",
            Event::Cancel => "cancel",
            Event::Coalesce => "coalesce",
            Event::Edit => "edit",
            Event::Revive => "revive",
            Event::ResolveDelivered => "resolve-delivered",
            Event::ResolveAgain => "resolve-again",
            Event::ResolveDead => "resolve-dead",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_delivered_or_cancelled() {
        for event in Event::ALL {
            assert_eq!(State::Delivered.on(event), None);
            assert_eq!(State::Cancelled.on(event), None);
        }
    }

    #[test]
    fn every_state_can_reach_an_end() {
        for start in State::ALL {
            let mut seen = vec![start];
            let mut at = 0;
            while at < seen.len() {
                for event in Event::ALL {
                    if let Some(next) = seen[at].on(event)
                        && !seen.contains(&next)
                    {
                        seen.push(next);
                    }
                }
                at += 1;
            }
            assert!(seen.iter().any(|s| s.is_final()), "{start} reaches no end");
        }
    }

    #[test]
    fn names_and_numbers_read_back() {
        for s in State::ALL {
            assert_eq!(State::from_name(s.name()), Some(s));
            assert_eq!(State::from_u8(s as u8), Some(s));
        }
    }
}

//! What answers last said of each limit, as they said it: for people. What follows from it is in the limiter.
//!
//! Kept by this process alone and in memory, for a bounded number of limits: those that were told of longest ago are
//! forgotten first. Must never know: headers. Next: `heard`, which fills it; `gate/report`, which shows it.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::clock::Timestamp;
use crate::model::call::LimitKey;

/// Limits remembered at least; at most twice as many.
const LIMITS_KEPT: usize = 5_000;

/// A provider's own numbers of one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub max: Option<u32>,
    pub left: Option<u32>,
    /// Steady.
    pub reset_at: Option<Timestamp>,
    /// Steady time of the answer; `None`: another daemon heard it.
    pub heard_at: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub struct Board(Mutex<Halves>);

/// The older half is dropped when the newer one is full.
#[derive(Debug, Default)]
struct Halves {
    newer: HashMap<LimitKey, Told>,
    older: HashMap<LimitKey, Told>,
}

impl Board {
    pub fn note(&self, told: impl IntoIterator<Item = (LimitKey, Told)>) {
        let mut halves = self.0.lock().expect("no panic while held");
        for (key, told) in told {
            if halves.newer.len() >= LIMITS_KEPT && !halves.newer.contains_key(&key) {
                halves.older = std::mem::take(&mut halves.newer);
            }
            halves.newer.insert(key, told);
        }
    }

    pub fn of(&self, key: &LimitKey) -> Option<Told> {
        let halves = self.0.lock().expect("no panic while held");
        halves.newer.get(key).or_else(|| halves.older.get(key)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> LimitKey {
        LimitKey(format!("crm/core:60s@{n}").into())
    }

    #[test]
    fn the_last_word_counts_and_memory_is_bounded() {
        let board = Board::default();
        let left = |left| Told { left: Some(left), ..Told::default() };
        board.note([(key(0), left(9)), (key(0), left(7))]);
        assert_eq!(board.of(&key(0)), Some(left(7)));
        board.note((1..=2 * LIMITS_KEPT).map(|n| (key(n), left(1))));
        assert_eq!(board.of(&key(0)), None, "told of longest ago");
        assert_eq!(board.of(&key(2 * LIMITS_KEPT)), Some(left(1)));
        let halves = board.0.lock().unwrap();
        assert!(halves.newer.len() + halves.older.len() <= 2 * LIMITS_KEPT);
    }
}

//! What the limiter keeps in this process: how limits are declared, and what the server may not have heard.
//!
//! An acquire whose answer was lost may have been granted: it is recalled and given back, so that no permit stays in
//! flight for nobody. A settle whose answer was lost is sent again under its number, which the server counts once.
//! Everything is bounded: what does not fit is left to the server, which frees calls in flight of a silent daemon.
//! Must never know: connections. Next: `send.rs`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::frame::Declaration;
use crate::limiter::{Acquire, Settle};
use crate::model::call::LimitKey;
use crate::model::provider::Limit;

/// Declarations in each of two generations.
const DECLARED_MAX: usize = 65_536;
/// Frames of each kind that wait for the server.
const WAITING_MAX: usize = 4_096;

/// Acquires of one provider that may or may not have been granted.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    pub provider: Arc<str>,
    pub number: u64,
    pub epoch: i64,
    pub requests: Vec<Acquire>,
}

/// Settles of one provider that are to be counted once.
#[derive(Clone, Debug)]
pub(super) struct Owed {
    pub provider: Arc<str>,
    pub number: u64,
    pub settles: Vec<Settle>,
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    young: HashMap<LimitKey, Known>,
    old: HashMap<LimitKey, Known>,
    doubts: VecDeque<Doubt>,
    owed: VecDeque<Owed>,
    /// Doubts and settles that did not fit.
    pub dropped: u64,
}

#[derive(Clone, Debug)]
struct Known {
    limit: Arc<Limit>,
    declaration: Declaration,
}

impl Desk {
    /// The declaration in force, right at the server's `now`.
    pub(super) fn declare(&mut self, key: &LimitKey, limit: &Arc<Limit>, now: i64) -> Declaration {
        if let Some(known) = self.young.get(key)
            && Arc::ptr_eq(&known.limit, limit)
            && known.declaration.is_right_at(now)
        {
            return known.declaration;
        }
        let declaration = Declaration::new(limit, now);
        self.keep(key.clone(), Known { limit: limit.clone(), declaration });
        declaration
    }

    /// How this process declared the limit last.
    pub(super) fn declared(&mut self, key: &LimitKey, now: i64) -> Option<(Arc<Limit>, Declaration)> {
        let known = match self.young.get(key) {
            Some(known) => known.clone(),
            None => {
                let known = self.old.remove(key)?;
                self.keep(key.clone(), known.clone());
                known
            }
        };
        let right = known.declaration.is_right_at(now);
        let declaration = if right { known.declaration } else { self.declare(key, &known.limit, now) };
        Some((known.limit, declaration))
    }

    fn keep(&mut self, key: LimitKey, known: Known) {
        if self.young.len() >= DECLARED_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, known);
    }

    pub(super) fn doubt(&mut self, doubt: Doubt) {
        if self.doubts.len() >= WAITING_MAX {
            self.doubts.pop_front();
            self.dropped += 1;
        }
        self.doubts.push_back(doubt);
    }

    /// False: there is no room, the settle is left out.
    pub(super) fn owe(&mut self, owed: Owed) -> bool {
        let room = self.owed.len() < WAITING_MAX;
        if room {
            self.owed.push_back(owed);
        } else {
            self.dropped += 1;
        }
        room
    }

    pub(super) fn is_clear(&self) -> bool {
        self.doubts.is_empty() && self.owed.is_empty()
    }

    /// The oldest of what waits.
    pub(super) fn take(&mut self, most: usize) -> (Vec<Doubt>, Vec<Owed>) {
        let doubts = self.doubts.drain(..self.doubts.len().min(most)).collect();
        let owed = self.owed.drain(..self.owed.len().min(most)).collect();
        (doubts, owed)
    }
}

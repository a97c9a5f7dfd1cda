//! What a limiter notes on a list of spends, so that asking with the same list again is quick: where each limit lies, and
//! the permit's list. Hints only: whoever reads them checks them. Must never know: counts. Next: `limiter/local/table.rs`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::model::call::LimitKey;

/// Belongs to one place in one list: a clone, which may go into another list, starts without notes.
#[derive(Debug, Default)]
pub(super) struct Memo {
    /// The slot of the limit plus one; 0: not noted.
    slot: AtomicUsize,
    /// On the first of a list: what a permit for the whole list says.
    permit: OnceLock<Arc<[(LimitKey, u32)]>>,
}

impl Clone for Memo {
    fn clone(&self) -> Self {
        Memo::default()
    }
}

impl Memo {
    pub(super) fn slot(&self) -> Option<usize> {
        self.slot.load(Ordering::Relaxed).checked_sub(1)
    }

    pub(super) fn note_slot(&self, at: usize) {
        self.slot.store(at + 1, Ordering::Relaxed);
    }

    pub(super) fn permit(&self, make: impl FnOnce() -> Arc<[(LimitKey, u32)]>) -> Arc<[(LimitKey, u32)]> {
        self.permit.get_or_init(make).clone()
    }
}

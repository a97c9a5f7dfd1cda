//! Subscriptions in force. Read by every commit, changed by a reload.
//!
//! Must never know: what they are told. Next: `store/notices`.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::model::notify::Subscription;

/// Cheap to clone; a reader never waits for a writer.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions(Arc<ArcSwap<Vec<Subscription>>>);

impl Subscriptions {
    pub fn new(all: Vec<Subscription>) -> Subscriptions {
        let subscriptions = Subscriptions::default();
        subscriptions.replace(all);
        subscriptions
    }

    /// Puts these in force in place of all others, from the next commit on.
    pub fn replace(&self, all: Vec<Subscription>) {
        self.0.store(Arc::new(all));
    }

    pub(super) fn now(&self) -> Arc<Vec<Subscription>> {
        self.0.load_full()
    }
}

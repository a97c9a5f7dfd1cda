//! How many calls are open: about to begin, on the wire, or answered and not recorded yet. A stop waits for none.
//!
//! The wire alone is not enough: a call that has its answer still needs the writer, or its outcome is lost and the next
//! start must take it for a crash. Must never know: what a call does. Next: `gate/actor`, which holds calls open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct OpenCalls {
    open: AtomicUsize,
    none: Notify,
}

/// Keeps the stop waiting until it is dropped.
#[derive(Debug)]
pub struct Held(Arc<OpenCalls>);

impl OpenCalls {
    /// To be called before one looks whether calls may still begin: then either the looker sees that they may not, or
    /// [`OpenCalls::landed`] sees the looker.
    pub fn hold(self: &Arc<Self>) -> Held {
        self.open.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Held(self.clone())
    }

    /// Resolves when none is open. To be called after it was said that none may begin.
    pub async fn landed(&self) {
        fence(Ordering::SeqCst);
        loop {
            let mut next = std::pin::pin!(self.none.notified());
            // Listens before it looks: the last one that ends in between is heard.
            next.as_mut().enable();
            if self.open.load(Ordering::SeqCst) == 0 {
                return;
            }
            next.await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_has_landed_when_the_last_one_ended() {
        let calls = Arc::new(OpenCalls::default());
        calls.landed().await;
        let held = [calls.hold(), calls.hold()];
        let mut landed = tokio_test::task::spawn(calls.landed());
        assert!(landed.poll().is_pending());
        let [first, second] = held;
        drop(first);
        assert!(!landed.is_woken() && landed.poll().is_pending());
        drop(second);
        assert!(landed.is_woken() && landed.poll().is_ready());
    }
}

//! Reading the configuration again, asked for by an edge and done by the frame.
//!
//! A reload is answered: what changed, or everything that is wrong and that nothing changed. So `systemctl reload`
//! can fail visibly. Must never know: files. Next: `app`, which does it.

use tokio::sync::{mpsc, oneshot};

use super::Api;
use super::error::{Code, Error, RESTART_WAIT, Result, VIOLATIONS_MAX, Violation};

/// Reloads that may wait to be done. They are done one after the other.
pub const RELOADS_WAITING_MAX: usize = 4;

/// What a reload did, one sentence per change; or all problems, with their places, and nothing was changed.
pub type Reloaded = Result<Vec<String>, Vec<String>>;

/// One asked-for reload. Whoever does it answers.
#[derive(Debug)]
pub struct Reload(oneshot::Sender<Reloaded>);

impl Reload {
    pub fn answer(self, done: Reloaded) {
        // Who asked may have gone; the reload counts all the same.
        let _ = self.0.send(done);
    }
}

/// The two ends: edges ask, the frame does.
pub fn channel() -> (mpsc::Sender<Reload>, mpsc::Receiver<Reload>) {
    mpsc::channel(RELOADS_WAITING_MAX)
}

impl Api {
    /// Reads the configuration again and puts it in force, whole or not at all.
    pub async fn reload(&self) -> Result<Vec<String>> {
        let Some(to) = &self.0.options.reload else {
            return Err(Error::new(
                Code::Unimplemented,
                "NO_CONFIG_FILE",
                "this daemon runs without configuration files",
            ));
        };
        let (answer, answered) = oneshot::channel();
        let unavailable = |reason, said| Error::new(Code::Unavailable, reason, said).retry_in(RESTART_WAIT);
        let busy = |_| unavailable("RELOAD_BUSY", "other reloads wait already");
        to.try_send(Reload(answer)).map_err(busy)?;
        let gone = |_| unavailable("DRAINING", "the daemon shut down before the reload was done");
        answered.await.map_err(gone)?.map_err(|problems| {
            let wrong = problems.into_iter().take(VIOLATIONS_MAX).map(|description| Violation {
                field: "config".into(),
                reason: "BAD_CONFIG",
                description,
            });
            Error::fields(wrong.collect())
        })
    }
}

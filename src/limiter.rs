//! Leave to make calls: one trait over the place where the counts live. `local` keeps them in this process, `redis`
//! shares them between many.
//!
//! A decision is over several limits at once, all or nothing. Refusal is a value that says when to come back; the
//! caller sleeps until then and never polls. See docs/limits.md for the guarantee. Must never know: jobs, stores,
//! HTTP. Next: `limit/` has the arithmetic, `engine/gate` is the caller.

use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::model::call::{LimitKey, Permit};
use crate::model::flow::Class;
use crate::model::provider::Limit;

pub mod key;
pub mod local;
mod memo;
pub mod redis;

pub use crate::limit::LimitView;
pub use key::{Keyed, behind, keyed, provider_spends, spends};
pub use local::LocalLimiter;
pub use redis::RedisLimiter;

/// One limit as spent by one call.
#[derive(Clone, Debug)]
pub struct Spend {
    pub key: LimitKey,
    pub limit: Arc<Limit>,
    memo: memo::Memo,
}

impl Spend {
    pub fn new(key: LimitKey, limit: Arc<Limit>) -> Self {
        Spend { key, limit, memo: memo::Memo::default() }
    }
}

/// Asks for `min..=max` calls at once, each spending every limit in `spends`.
#[derive(Clone, Debug)]
pub struct Acquire {
    pub spends: Arc<[Spend]>,
    /// At least 1.
    pub min: u32,
    pub max: u32,
    /// Reserves for more urgent classes are kept back.
    pub class: Class,
    /// A repeated request with the same number gets its first answer. 0: no number.
    pub request: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Leave for `count` calls. Each carries `permit` into the journal and is settled by itself.
    Granted { count: u32, permit: Permit },
    /// Nothing was written. Ask again at `earliest` (steady), or when a call that spends `binder` has settled if
    /// `soft` says that an answer could free it sooner.
    Wait { earliest: Timestamp, binder: LimitKey, soft: bool },
}

/// The end of `count` granted calls.
#[derive(Clone, Debug)]
pub struct Settle {
    pub permit: Permit,
    pub count: u32,
    /// False only if no byte left the process: the permits return at once.
    pub sent: bool,
    /// An answer came that was no refusal: after one, more calls may follow (`limit/thaw.rs`).
    pub good: bool,
    /// Permits that a call has cost, of those limits of which it is not what was granted for it. More than was granted
    /// counts although there was no room.
    pub costs: Vec<(LimitKey, u32)>,
    /// The provider said "not now" until this steady time: the limits of the call are blocked until then.
    pub blocked_until: Option<Timestamp>,
    /// The name of the limit it spoke of, when it said.
    pub blocked_limit: Option<String>,
    /// What the answer said about limits of the call; of others it is passed over.
    pub said: Vec<Said>,
}

impl Settle {
    /// Of calls that cost what was granted for them and, if they were sent, were answered well.
    pub fn new(permit: Permit, count: u32, sent: bool) -> Self {
        Settle {
            permit,
            count,
            sent,
            good: sent,
            costs: Vec::new(),
            blocked_until: None,
            blocked_limit: None,
            said: Vec::new(),
        }
    }

    /// What one call has cost of a limit of which so much was granted.
    fn cost(&self, key: &LimitKey, granted: u32) -> u32 {
        match self.costs.iter().find(|(of, _)| of == key) {
            _ if !self.sent => 0,
            Some((_, cost)) => *cost,
            None => granted,
        }
    }
}

/// A provider's own number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub key: LimitKey,
    /// Permits left when the answer was made.
    pub left: u32,
    /// Steady time of the reset.
    pub until: Timestamp,
}

/// What the journal says about one call, for rebuilding.
#[derive(Clone, Debug)]
pub struct Seed {
    pub permit: Permit,
    /// When the permits began to age: the answer, or the latest time an unanswered call can have arrived.
    pub anchored_at: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Hold: waiting costs a durable queue only time.
    #[error("the limiter is not available: {reason}")]
    Unavailable { reason: String },
    /// The shared counts are gone, or are those of another epoch: hold, and seed them from the journal. Never a fresh
    /// quota.
    #[error(
        "the limits of provider {provider} are not seeded for epoch {epoch} (found: {found:?}); \
         seed them from the journal"
    )]
    Unseeded { provider: String, epoch: i64, found: Option<i64> },
    /// Another server process answers than the one whose counts were accepted, so counts may be missing: compare the run
    /// id with the one on record, raise the epoch if it differs, and seed.
    #[error("the limiter's server is another process now, run id {run_id}; its counts are not trusted yet")]
    Restarted { run_id: String },
}

#[async_trait]
pub trait Limiter: Send + Sync + std::fmt::Debug {
    /// Decides all requests in order, in one round trip. Steady `now` comes from the caller where the counts are
    /// local; a shared limiter uses its server's time.
    async fn acquire(&self, now: Timestamp, requests: &[Acquire]) -> Result<Vec<Answer>, Error>;
    /// Late settles are safe: they only delay reuse. Every granted call is settled exactly once, or seeded after a
    /// crash. Read `now` after the answer came.
    async fn settle(&self, now: Timestamp, settles: &[Settle]) -> Result<(), Error>;
    /// Merges what the journal knows. Before the first acquire, once per journal entry: the journal is all that a limiter
    /// is rebuilt from (docs/decisions/0023-the-journal-suffices.md).
    /// Limits that are not in `limits` are kept aside until the first acquire declares them.
    async fn seed(&self, now: Timestamp, limits: &[Spend], entries: &[Seed]) -> Result<(), Error>;
    async fn peek(&self, now: Timestamp, spends: &[Spend]) -> Result<Vec<LimitView>, Error>;
    fn epoch(&self) -> i64;
}

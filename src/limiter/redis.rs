//! The limiter that many daemons share: counts lie in Redis (or Valkey), decisions are Lua scripts there.
//!
//! One round trip serves many decisions; one hash per provider holds all its limits, so that a decision is one slot of a
//! cluster and that what is lost is lost as a whole (docs/decisions/0020-one-hash-per-provider.md). Counting goes by the
//! server's clock; `lines.rs` puts what it says on this daemon's steady line. Redis may forget: then nothing is granted
//! until the limits are rebuilt from the journal, under an epoch that the store fences. The way of a caller of this room:
//!
//! 1. [`RedisLimiter::connect`], and [`RedisLimiter::run_id`] as soon as the server is there; compare it with the one on
//!    record, and raise the epoch on record when it differs.
//! 2. [`RedisLimiter::trust`] with both. Until then every verb answers [`Error::Restarted`].
//! 3. Read each provider's part of the journal and [`RedisLimiter::rebuild`].
//! 4. On [`Error::Restarted`], or when [`RedisLimiter::next_connection`] tells another run id: from 1 again. On
//!    [`Error::Unseeded`] under the present epoch too, and the epoch is raised in any case: a call granted before the
//!    loss may not be in the journal yet, and then must not get there any more.
//!
//! Must never know: jobs, stores, HTTP. Next: `redis/acquire.lua`, then `redis/send.rs`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{join, join_all};
use tokio::sync::Semaphore;

use super::{Acquire, Answer, Error, LimitView, Limiter, Seed, Settle, Spend};
use crate::clock::{Clock, Timestamp};
use crate::model::id::DaemonId;

mod check;
mod desk;
mod frame;
mod fred;
mod lines;
pub mod link;
mod seed;
mod send;
mod together;
mod view;

pub use check::{Finding, Level};
pub use fred::FredLink;
pub use link::{Link, LinkError, Script};

use desk::Desk;
use lines::Lines;
use together::Queues;

/// On the server's line: later than anything that happens. Exact as a double.
const FAR: f64 = 8e15;
/// Requests or settles in one script call: about half a millisecond of the server's time.
const FRAME_MAX: usize = 32;
/// Script calls under way at most; more are refused at once.
const CALLS_MAX: usize = 4_096;
/// A server that is there is connected to within milliseconds; one that is not keeps a start waiting for this long.
const CONNECTED_MAX: Duration = Duration::from_secs(3);
/// A calendar's edges are sent again at most so often.
const STALE_MAX: usize = 3;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Without an answer for this long, Redis counts as away.
    pub timeout: Duration,
    /// A daemon that was granted nothing on a limit for this long has no call in flight there: longer than any call
    /// may take (15 min at most), retries of its settle included. Frees what a dead daemon held.
    pub in_flight_max: Duration,
    /// With TLS: a PEM file of the authorities to trust, in place of those of the machine.
    pub ca_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { timeout: Duration::from_millis(1_500), in_flight_max: Duration::from_secs(1_200), ca_file: None }
    }
}

#[derive(Debug)]
pub struct RedisLimiter {
    link: Arc<dyn Link>,
    clock: Clock,
    settings: Settings,
    /// This process among those that share the server.
    daemon: AtomicU32,
    /// Steady time since which it goes by that number; what was granted before was buried under another.
    renamed_at: AtomicI64,
    epoch: AtomicI64,
    /// Number of the last frame.
    number: AtomicU64,
    lines: Mutex<Lines>,
    desk: Mutex<Desk>,
    queues: Queues,
    /// The server process whose counts may be used.
    trusted: Mutex<Option<String>>,
    /// The connection on which that process was recognised; 0: none.
    recognised: AtomicU64,
    away: AtomicBool,
    mending: AtomicBool,
    calls: Semaphore,
    /// The caller's `now` is the server's time: for test vectors.
    callers_time: bool,
}

impl RedisLimiter {
    /// `redis://[[user]:password@]host:port[/db]` or `redis-cluster://...`, with TLS `rediss...`. Connects in the background and for ever;
    /// fails only on an address that cannot be read. Call inside a runtime.
    pub fn connect(url: &str, clock: Clock, settings: Settings) -> Result<Self, Error> {
        let link = FredLink::connect(url, settings.timeout, settings.ca_file.as_deref());
        let link = link.map_err(|e| Error::Unavailable { reason: e.to_string() })?;
        Ok(RedisLimiter::new(Arc::new(link), clock, settings))
    }

    pub fn new(link: Arc<dyn Link>, clock: Clock, settings: Settings) -> Self {
        RedisLimiter {
            link,
            clock,
            settings,
            daemon: AtomicU32::new(rand::random_range(1..u32::MAX)),
            renamed_at: AtomicI64::new(i64::MIN),
            epoch: AtomicI64::new(0),
            number: AtomicU64::new(0),
            lines: Mutex::new(Lines::new(false)),
            desk: Mutex::new(Desk::default()),
            queues: Queues::default(),
            trusted: Mutex::new(None),
            recognised: AtomicU64::new(0),
            away: AtomicBool::new(false),
            mending: AtomicBool::new(false),
            calls: Semaphore::new(CALLS_MAX),
            callers_time: false,
        }
    }

    /// The scripts take the `now` of each call for the server's time, and nothing is translated: so test vectors and
    /// the comparison with the local limiter can be exact. Never for use: daemons would disagree about the time.
    #[must_use]
    pub fn on_callers_time(mut self) -> Self {
        self.callers_time = true;
        self.lines = Mutex::new(Lines::new(true));
        self
    }

    /// Goes by the number that others know from the store, so that they can [`RedisLimiter::bury`] it.
    #[must_use]
    pub fn known_as(mut self, daemon: DaemonId) -> Self {
        self.daemon = AtomicU32::new(number_of(daemon));
        self
    }

    /// This process among those that share the server; for [`RedisLimiter::bury`] by another.
    pub fn daemon(&self) -> u32 {
        self.daemon.load(Ordering::SeqCst)
    }

    /// Others took this process for dead and gave what it held a time to end: it goes on under another number, so that
    /// what it is granted from now on is not buried with it.
    fn rename(&self, buried: u32, now: Timestamp) {
        let fresh = rand::random_range(1..u32::MAX);
        if self.daemon.compare_exchange(buried, fresh, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.renamed_at.store(now.0, Ordering::SeqCst);
            tracing::warn!("other daemons took this one for dead; what it held of the limits counts as sent");
        }
    }

    /// From now on the counts of this server process may be used, under this epoch.
    pub fn trust(&self, run_id: &str, epoch: i64) {
        self.epoch.store(epoch, Ordering::SeqCst);
        *lock(&self.trusted) = Some(run_id.to_owned());
        self.recognised.store(0, Ordering::SeqCst);
    }

    /// Another epoch on the same server: somebody raised it. Older counts are refused from now on.
    pub fn set_epoch(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::SeqCst);
    }

    /// Which server process answers; of a cluster all that hold keys, joined.
    pub async fn run_id(&self) -> Result<String, Error> {
        let told = self.read_run_id().await.map_err(send::unavailable)?;
        // It answers. What it holds may still be of no use, and whoever finds that out says so.
        self.away.store(false, Ordering::Relaxed);
        Ok(told)
    }

    /// Waits for another connection than number `seen` (0 at first), and tells its number and the run id it leads to.
    pub async fn next_connection(&self, seen: u64) -> Result<(u64, String), Error> {
        let generation = self.link.changed(seen).await;
        Ok((generation, self.run_id().await?))
    }

    /// True while Redis does not answer: jobs are held.
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed) || !self.link.is_up()
    }

    /// Lost answers that were not taken back and settles that were not sent for want of room. The server frees what they
    /// held after [`Settings::in_flight_max`].
    pub fn dropped(&self) -> u64 {
        lock(&self.desk).dropped
    }

    /// What is to be said about the server's settings. Waits [`CONNECTED_MAX`] for the first connection.
    pub async fn check(&self) -> Result<Vec<Finding>, Error> {
        // Past it the question itself says what is wrong.
        let _ = tokio::time::timeout(CONNECTED_MAX, self.link.changed(0)).await;
        check::findings(self.link.as_ref(), self.clock.now()).await.map_err(send::unavailable)
    }

    /// Two lines: the caller's time of the answer, and now.
    fn steady(&self, now: Timestamp) -> Timestamp {
        if self.callers_time { now } else { self.clock.steady() }
    }
}

/// By which number the limiter of a daemon goes.
pub fn number_of(daemon: DaemonId) -> u32 {
    let (high, low) = daemon.0.as_u64_pair();
    let mixed = high ^ low;
    (((mixed >> 32) ^ mixed) as u32).max(1)
}

/// A panic elsewhere leaves at worst a note undone: safe, and better than no limiter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hash of a provider. The braces make all that belongs to it one slot of a cluster.
fn hash(provider: &str) -> Bytes {
    Bytes::from(format!("tg:{{{provider}}}"))
}

/// The provider that a limit belongs to: what its key begins with.
fn provider(key: &str) -> &str {
    key.split('/').next().unwrap_or_default()
}

/// Neighbours of one provider, at most `most` together.
fn frames<T>(items: &[T], most: usize, key: fn(&T) -> Option<&str>) -> Vec<(&str, &[T])> {
    let runs = items.chunk_by(|a, b| key(a).map(provider) == key(b).map(provider));
    let parts = runs.flat_map(|run| run.chunks(most));
    parts.map(|part| (key(&part[0]).map(provider).unwrap_or_default(), part)).collect()
}

#[async_trait]
impl Limiter for RedisLimiter {
    async fn acquire(&self, now: Timestamp, requests: &[Acquire]) -> Result<Vec<Answer>, Error> {
        let parts = frames(requests, FRAME_MAX, |r| r.spends.first().map(|s| &*s.key.0));
        let asked = parts.iter().map(|(provider, part)| self.ask(now, provider, part));
        let (got, ()) = join(join_all(asked), self.mend(now)).await;
        if let Some(at) = got.iter().position(Result::is_err) {
            // All or nothing towards the caller too. Numbered requests it will ask again.
            let granted = parts.iter().zip(&got).flat_map(|((_, part), got)| part.iter().zip(got.iter().flatten()));
            let permits = granted.filter_map(|(request, answer)| match answer {
                Answer::Granted { count, permit } if request.request == 0 => Some((*count, permit.clone())),
                _ => None,
            });
            self.give_back(permits.collect());
            return got.into_iter().nth(at).unwrap_or_else(|| Ok(Vec::new()));
        }
        Ok(got.into_iter().flatten().flatten().collect())
    }

    async fn settle(&self, now: Timestamp, settles: &[Settle]) -> Result<(), Error> {
        let parts = frames(settles, FRAME_MAX, |s| s.permit.spends.first().map(|(key, _)| &*key.0));
        let told = parts.iter().map(|(provider, part)| self.tell_together(now, provider, part));
        let (told, ()) = join(join_all(told), self.mend(now)).await;
        told.into_iter().collect()
    }

    /// Rebuilds each provider that is named in `limits` or `entries` from these entries alone, unless another daemon
    /// has done so under this epoch: unlike a local limiter it wants all entries of a provider in one call.
    async fn seed(&self, now: Timestamp, limits: &[Spend], entries: &[Seed]) -> Result<(), Error> {
        let named = entries.iter().flat_map(|e| e.permit.spends.iter()).map(|(key, _)| key);
        let named = limits.iter().map(|s| &s.key).chain(named);
        let providers: std::collections::BTreeSet<&str> = named.map(|key| provider(&key.0)).collect();
        for provider in providers {
            self.rebuild(now, provider, entries).await?;
        }
        Ok(())
    }

    async fn peek(&self, now: Timestamp, spends: &[Spend]) -> Result<Vec<LimitView>, Error> {
        let parts = frames(spends, frame::LIMITS_MAX, |s| Some(&*s.key.0));
        let looked = parts.iter().map(|(provider, part)| self.look(now, provider, part));
        let mut views = Vec::with_capacity(spends.len());
        for part in join_all(looked).await {
            views.extend(part?);
        }
        Ok(views)
    }

    fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::SeqCst)
    }
}

//! The only source of "now". Nothing else in the crate may ask the operating system for the time.
//!
//! Two time lines exist. [`Clock::now`] is wall time: for people, schedules and records. [`Clock::steady`] never
//! steps and never goes back: limits, leases and deadlines live on it. The steady line is `CLOCK_BOOTTIME` plus an
//! offset that the store remembers per boot, so it goes on across restarts of the daemon even when somebody sets the
//! wall clock in between. Must never know: jobs, stores, limits. Next: `model/`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time: microseconds since the Unix epoch. Fits SQL integers and Lua numbers exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub const ZERO: Timestamp = Timestamp(0);
    /// Later than anything that happens. Used for "no known time".
    pub const NEVER: Timestamp = Timestamp(i64::MAX);

    pub fn from_millis(ms: i64) -> Self {
        Timestamp(ms.saturating_mul(1_000))
    }

    pub fn from_secs(s: i64) -> Self {
        Timestamp(s.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    pub fn micros(self) -> i64 {
        self.0
    }

    pub fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, d: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, d: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl std::fmt::Display for Timestamp {
    /// RFC 3339 with microseconds, UTC.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => f.write_str("never"),
        }
    }
}

/// A cheap handle on the time lines.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    /// The operating system. The offset turns boot time into the steady line. `shared`: the steady line was put on a clock
    /// that others go by too, and is the wall time of this process as well.
    System { steady_offset_us: AtomicI64, shared: AtomicBool },
    /// tokio's clock: real in a normal runtime, virtual in a paused one. The deterministic simulation runs on it.
    Tokio { origin: tokio::time::Instant, start: Timestamp },
    /// Moves only when told to.
    Manual(AtomicI64),
}

impl Clock {
    pub fn system() -> Self {
        let offset = wall_us() - boot_us();
        Clock(Arc::new(Source::System { steady_offset_us: AtomicI64::new(offset), shared: AtomicBool::new(false) }))
    }

    /// Follows tokio's clock from `start` on. Call inside a runtime.
    pub fn tokio(start: Timestamp) -> Self {
        Clock(Arc::new(Source::Tokio { origin: tokio::time::Instant::now(), start }))
    }

    pub fn manual(start: Timestamp) -> Self {
        Clock(Arc::new(Source::Manual(AtomicI64::new(start.0))))
    }

    /// Wall time. May step when somebody sets the clock; never use it to measure.
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Source::System { shared, .. } if !shared.load(Ordering::Relaxed) => Timestamp(wall_us()),
            _ => self.steady(),
        }
    }

    /// The steady line: counts through suspend, never steps, never goes back.
    pub fn steady(&self) -> Timestamp {
        match &*self.0 {
            Source::System { steady_offset_us, .. } => Timestamp(boot_us() + steady_offset_us.load(Ordering::Relaxed)),
            Source::Tokio { origin, start } => *start + origin.elapsed(),
            Source::Manual(us) => Timestamp(us.load(Ordering::Relaxed)),
        }
    }

    /// Identity of this boot of the machine and the offset in use, for the store to remember.
    pub fn boot(&self) -> (String, i64) {
        match &*self.0 {
            Source::System { steady_offset_us, .. } => (boot_id(), steady_offset_us.load(Ordering::Relaxed)),
            _ => ("virtual".to_owned(), 0),
        }
    }

    /// Takes up the steady line where an earlier process of the same boot left it, or, after a reboot, no earlier
    /// than `floor` (the latest steady stamp on record). Does nothing on virtual clocks.
    pub fn resume_steady(&self, remembered: Option<(&str, i64)>, floor: Timestamp) {
        let Source::System { steady_offset_us, .. } = &*self.0 else {
            return;
        };
        match remembered {
            // A boot id that cannot be read (a sandbox hides /proc/sys) says nothing about which boot this is.
            Some((boot, offset)) if !boot.is_empty() && boot == boot_id() => {
                steady_offset_us.store(offset, Ordering::Relaxed);
            }
            _ => {
                let behind = floor.0 - self.steady().0;
                if behind > 0 {
                    steady_offset_us.fetch_add(behind, Ordering::Relaxed);
                }
            }
        }
    }

    /// Puts both lines where others have theirs, as told by the clock that all of them share. Once, at start: from then on
    /// they go by this machine's own time since boot, whatever anybody does to its wall clock. So a due time means the
    /// same to every daemon, though one machine's clock be an hour off.
    pub fn align(&self, shared_now: Timestamp) {
        if let Source::System { steady_offset_us, shared } = &*self.0 {
            steady_offset_us.store(shared_now.0 - boot_us(), Ordering::Relaxed);
            shared.store(true, Ordering::Relaxed);
        }
    }

    /// Moves a manual clock forward; does nothing on the others.
    pub fn advance(&self, d: Duration) {
        if let Source::Manual(us) = &*self.0 {
            us.fetch_add(i64::try_from(d.as_micros()).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }

    /// Sleeps until the steady line reaches `at`. Returns at once when it has.
    pub async fn sleep_until(&self, at: Timestamp) {
        // A year is "for ever" to a timer, and keeps tokio's arithmetic far from overflow.
        let wait = at.since(self.steady()).min(Duration::from_secs(365 * 86_400));
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// The same for a thread of its own, to some 60 us where the runtime's timers are good for a millisecond. Never call
    /// it in a task, nor on a virtual clock, which does not move meanwhile.
    pub fn block_until(&self, at: Timestamp) {
        loop {
            let wait = at.since(self.steady());
            if wait.is_zero() {
                return;
            }
            std::thread::sleep(wait);
        }
    }
}

fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn boot_us() -> i64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    t.tv_sec * 1_000_000 + t.tv_nsec / 1_000
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_line_resumes_within_a_boot_and_never_falls_behind_the_record() {
        let clock = Clock::system();
        let (boot, offset) = clock.boot();
        clock.resume_steady(Some((&boot, offset + 7_000_000)), Timestamp::ZERO);
        assert_eq!(clock.boot().1, offset + 7_000_000);
        let far = clock.steady() + Duration::from_secs(3_600);
        clock.resume_steady(Some(("another boot", 0)), far);
        assert!(clock.steady() >= far);
    }

    #[test]
    fn an_aligned_clock_goes_by_the_shared_one_for_people_too() {
        let clock = Clock::system();
        let theirs = clock.now() + Duration::from_secs(3_600);
        clock.align(theirs);
        assert!(clock.now() >= theirs && clock.steady() >= theirs);
        assert!(clock.now() < theirs + Duration::from_secs(60));
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(Timestamp::from_secs(10));
        assert_eq!(clock.now(), clock.steady());
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.steady(), Timestamp::from_secs(15));
    }
}

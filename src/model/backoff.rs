//! When to try again: exponential backoff with full jitter.

use std::time::Duration;

/// Retry schedule of an operation.
///
/// Delay before try n+1 is uniform in `[0, min(cap, base * 2^(n-1))]` ("full jitter", AWS Architecture Blog,
/// "Exponential Backoff And Jitter", 2015), but never under `floor`, so that a retry is never a hammer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub base: Duration,
    pub cap: Duration,
    pub floor: Duration,
    /// Calls that may be made for one job, the first included. At least 1.
    pub attempts_max: u32,
}

/// Why a schedule makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBackoff {
    #[error("expected at least 1 attempt, got 0")]
    NoAttempts,
    #[error("expected a base delay of at most the cap ({cap:?}), got {base:?}")]
    BaseAboveCap { base: Duration, cap: Duration },
    #[error("expected a base delay above zero")]
    NoBase,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            base: Duration::from_secs(2),
            cap: Duration::from_secs(600),
            floor: Duration::from_millis(100),
            attempts_max: 12,
        }
    }
}

impl Backoff {
    pub fn new(base: Duration, cap: Duration, attempts_max: u32) -> Result<Self, BadBackoff> {
        if attempts_max == 0 {
            return Err(BadBackoff::NoAttempts);
        }
        if base.is_zero() {
            return Err(BadBackoff::NoBase);
        }
        if base > cap {
            return Err(BadBackoff::BaseAboveCap { base, cap });
        }
        Ok(Backoff { base, cap, attempts_max, floor: Backoff::default().floor.min(base) })
    }

    /// Delay before the try after `attempts` tries, or `None` when they are used up. `dice` is uniform in `[0, 1)`.
    pub fn delay(&self, attempts: u32, dice: f64) -> Option<Duration> {
        if attempts >= self.attempts_max {
            return None;
        }
        Some(self.ceiling(attempts).mul_f64(dice.clamp(0.0, 1.0)).max(self.floor))
    }

    /// The longest delay that may follow `attempts` tries.
    pub fn ceiling(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(30);
        self.base.saturating_mul(1 << doublings).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_delay_stays_between_floor_and_ceiling(
            base_ms in 1u64..100_000, cap_ms in 1u64..10_000_000, tries in 1u32..100, dice in 0.0f64..1.0,
        ) {
            let made = Backoff::new(Duration::from_millis(base_ms), Duration::from_millis(cap_ms), 50);
            let Ok(b) = made else {
                prop_assert!(base_ms > cap_ms);
                return Ok(());
            };
            match b.delay(tries, dice) {
                None => prop_assert!(tries >= 50),
                Some(d) => prop_assert!(d >= b.floor && d <= b.cap.max(b.floor)),
            }
        }
    }

    #[test]
    fn the_ceiling_doubles_until_the_cap() {
        let b = Backoff::new(Duration::from_secs(2), Duration::from_secs(10), 9).unwrap();
        let ceilings: Vec<u64> = (1..6).map(|n| b.ceiling(n).as_secs()).collect();
        assert_eq!(ceilings, [2, 4, 8, 10, 10]);
    }
}

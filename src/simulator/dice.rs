//! Dice that fall the same way for the same seed, on every machine and in every version of every library.

use std::time::Duration;

use super::config::Latency;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`.
    pub fn share(&mut self) -> f64 {
        // 53 bits: all that an f64 between 0 and 1 can hold evenly.
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`. Throws nothing when `p` is 0, so that a fault which is off costs nothing.
    pub fn falls(&mut self, p: f64) -> bool {
        p > 0.0 && self.share() < p
    }

    /// Uniform in `0..n`; 0 when `n` is 0. The bias is below n / 2^64.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    pub fn latency(&mut self, of: &Latency) -> Duration {
        if self.falls(of.tail_share) {
            of.tail
        } else if of.median.is_zero() {
            Duration::ZERO
        } else {
            of.median.mul_f64(0.5 + self.share())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_falls_the_same_way() {
        let throw = |seed| (0..100).map(move |_| Dice::new(seed).next_u64()).collect::<Vec<_>>();
        assert_eq!(throw(7), throw(7));
        assert_ne!(throw(7), throw(8));
    }

    #[test]
    fn latency_has_the_declared_median_and_tail() {
        let (mut dice, of) = (Dice::new(3), Latency::default());
        let mut all: Vec<Duration> = (0..20_000).map(|_| dice.latency(&of)).collect();
        all.sort();
        let median = all[10_000].as_secs_f64();
        assert!((0.0195..0.0205).contains(&median), "{median}");
        let slow = all.iter().filter(|d| **d == of.tail).count();
        assert!((140..260).contains(&slow), "{slow}");
    }
}

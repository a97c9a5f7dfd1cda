//! The engine's only source of randomness, so that a seed replays everything.

use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[derive(Clone, Debug)]
pub struct Dice(Arc<Mutex<StdRng>>);

impl Dice {
    /// Different in every process.
    pub fn fresh() -> Self {
        Dice(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    /// The same throws for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Dice(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Uniform in `[0, 1)`.
    pub fn roll(&self) -> f64 {
        self.0.lock().expect("no panic while held").random()
    }
}

//! Planted bugs, for testing the tests: each must be caught by the history checker or the simulation.
//!
//! Without the feature `mutants` every question is `false` and the compiler removes the bug. With it, the environment
//! variable `TIDEGATE_MUTANT` names the one bug that is alive. Never part of a release build.

/// Is the planted bug of this name alive?
#[cfg(feature = "mutants")]
pub fn on(name: &str) -> bool {
    static ALIVE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    ALIVE.get_or_init(|| std::env::var("TIDEGATE_MUTANT").ok()).as_deref() == Some(name)
}

/// Is the planted bug of this name alive? Never, in this build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub fn on(_name: &str) -> bool {
    false
}

//! The arithmetic of limits: pure functions of `(state, now, n)`, without locks, clocks or I/O.
//!
//! One file per kind of limit; [`state::State`] is one limit of any kind together with what the provider said about it
//! (`feedback` reads that, `correction` keeps it, `thaw` opens slowly after a refusal), and [`set`] decides over several at once, all or nothing. Every kind keeps the promise of docs/limits.md: no interval
//! of the declared length holds more calls than declared, judged where the calls arrive. What a limiter is free to give
//! only ever grows while nothing happens, so "come back at `earliest`" can be said exactly. Must never know: jobs,
//! stores, HTTP, who asks. Next: `limiter/`, which keeps states by key.

pub mod bucket;
pub mod calendar;
pub mod concurrency;
pub mod correction;
pub mod cost;
pub mod feedback;
pub mod learned;
pub mod paced;
pub mod set;
pub mod state;
pub mod thaw;
pub mod view;
pub mod window;

pub use correction::Correction;
pub use state::State;
pub use thaw::Thaw;
pub use view::LimitView;

use crate::clock::Timestamp;

/// Why not now, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// If nothing else happens, exactly at this time the request is granted and not before; `NEVER` when only an
    /// answer (`soft`) or another declaration could help.
    pub earliest: Timestamp,
    /// The answer to a call in flight could free it sooner.
    pub soft: bool,
}

impl Denied {
    /// More than the limit ever gives.
    pub(crate) const HOPELESS: Denied = Denied { earliest: Timestamp::NEVER, soft: false };
}

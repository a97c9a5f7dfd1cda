//! The heart: actors that carry decisions out. [`Handle`] is all that the edges see of it.
//!
//! `gate` (one per provider) decides what leaves, `caller` runs one call, `writer` commits for everybody, `sweeper`
//! brings back what is due or was left behind, `supervisor` keeps them alive, `signal` wakes. Signals make it fast, the
//! store makes it sure: a lost wake costs time, never a job. Must never know: gRPC, HTTP servers, SQL.

pub mod handle;
pub mod status;

pub use handle::{EngineError, Handle};

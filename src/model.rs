//! The vocabulary: what a job, a call, a provider and a run are. Pure data and pure questions about it.
//!
//! Values check themselves when built, so later code never checks them again. Must never know: I/O, async, clocks,
//! wire formats, SQL. Next: `limit/` and `plan/`, which decide with these words.

pub mod address;
pub mod alert;
pub mod auth;
pub mod backoff;
pub mod call;
pub mod call_log;
pub mod collection;
pub mod event;
pub mod filter;
pub mod flow;
pub mod id;
pub mod invalidation;
pub mod job;
pub mod limit_headers;
pub mod name;
pub mod notify;
pub mod pages;
pub mod provider;
pub mod record;
pub mod request;
pub mod run;
pub mod schedule;
pub mod shard;
pub mod state;
pub mod verdict;
pub mod walk;
pub mod webhook;

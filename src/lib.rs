//! Tidegate: a daemon that owns your calls to other people's APIs.
//!
//! The rooms stand in the order in which a job walks through them, and imports go one way (`tests/tidy.rs` holds the
//! law): words, decisions, mechanisms, heart, edges.
//!
//! 1. `grpc::job_service` decodes; `grpc::convert` makes a `NewJob` or says which field is wrong.
//! 2. `api::jobs` applies policy and hands it to `engine::writer`, which gathers what arrives within a few
//!    milliseconds into one durable transaction ([`store::Store::commit`]). Only then is the client answered.
//! 3. The commit's report wakes `engine::gate`, one actor per provider. It asks `plan` what should leave and the
//!    [`limiter`] for leave to send it, and journals the calls through the writer.
//! 4. `engine::caller` runs one call: render, `outbound`, verdict per job, settle the permits, record the outcome.
//! 5. Retries come back by `due_at`; what a dead process left open, the sweeper brings back.
//!
//! Start reading at [`model`], then [`store`].

#![forbid(unsafe_code)]

// Vocabulary: pure.
pub mod clock;
pub mod model;

// Decisions: pure functions of state and now.
pub mod limit;
pub mod plan;

// Mechanisms: each behind one trait, none knows another.
pub mod limiter;
pub mod outbound;
pub mod store;

// Heart.
pub mod engine;

// Edges.
pub mod api;
pub mod cli;
pub mod grpc;
pub mod http;
pub mod simulator;

// Frame.
pub mod app;
pub mod config;
pub mod mutant;
pub mod telemetry;

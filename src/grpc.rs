//! The gRPC face: services, conversion between proto and model, status codes, the server.
//!
//! Proto types are seen only here and in `cli/`. Must never know: the engine's inside, SQL, HTTP routes. Next:
//! `grpc::server` puts the parts together, `grpc::convert` is the only place that turns proto into model and back.

pub mod json;
pub mod pb;

mod admin_service;
mod call_service;
pub mod convert;
mod job_service;
pub mod listener;
mod meter;
mod permit_service;
mod provider_service;
mod record_service;
mod run_service;
mod schedule_service;
pub mod server;
pub mod status;
mod streams;
pub mod transcode;
mod worker_service;

pub use server::{Limits, serve};

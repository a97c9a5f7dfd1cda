//! The HTTP face: REST, webhooks, health, readiness, metrics. Plain HTTP/1 on its own listener.
//!
//! `/healthz` says that the process runs, `/readyz` that it can do its work, `/metrics` how it does it. Must never
//! know: the engine's inside, SQL, proto types. Next: `http/rest.rs`, `http/metrics.rs`, `http/server.rs`.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::api::Api;
use crate::api::health::Health;
use crate::grpc::transcode::Transcoder;
use crate::telemetry::Metrics;

mod metrics;
mod rest;
mod server;
mod webhooks;

pub use server::{Bounds, serve};

/// What the routes share.
#[derive(Clone, Debug)]
struct Shared {
    api: Api,
    metrics: Metrics,
}

/// All routes. Other paths are 404, other methods 405.
pub fn router(api: Api, metrics: Metrics, methods: Transcoder) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics::scrape))
        .with_state(Shared { api: api.clone(), metrics })
        .merge(webhooks::router(api))
        .merge(rest::router(methods))
}

/// The process runs and its runtime turns. Asks nobody: a store that is away must not get the process killed.
async fn healthz() -> Response {
    plain(StatusCode::OK, "ok\n")
}

/// 200 while jobs can be accepted, and what holds them if anything does; else 503 and what stands in the way, a line each.
async fn readyz(State(shared): State<Shared>) -> Response {
    let Health { obstacles, remarks } = shared.api.health().await;
    let (status, first) = match obstacles.is_empty() {
        true => (StatusCode::OK, vec!["ready".to_owned()]),
        false => (StatusCode::SERVICE_UNAVAILABLE, obstacles),
    };
    plain(status, [first, remarks].concat().join("\n") + "\n")
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text.into()).into_response()
}

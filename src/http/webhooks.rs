//! `POST /hooks/{name}`: messages of webhooks, with their bodies as they came.
//!
//! Not below `/api/v1`: who sends shows a signature, so neither the host nor the origin of a request matters here. Any
//! answer of 2xx ends the sender's tries, and is given after the commit only. Must never know: signatures. Next:
//! `api/webhooks`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::Semaphore;

use super::rest::{read, told};
use crate::api::Api;
use crate::api::webhooks::Heard;
use crate::grpc::transcode::Problem;

/// Messages being taken in at one time, so that senders nobody knows fill no more memory than so many bodies.
const AT_ONCE_MAX: usize = 64;
/// A body must be there by then: nobody knows who sends it before it is read, and a place is held meanwhile. A sender's one
/// message of at most a mebibyte needs far less.
const BODY_WAIT_MAX: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct Door {
    api: Api,
    places: Arc<Semaphore>,
}

pub(super) fn router(api: Api) -> Router {
    let door = Door { api, places: Arc::new(Semaphore::new(AT_ONCE_MAX)) };
    Router::new().route("/hooks/{name}", post(hear)).with_state(door)
}

async fn hear(State(door): State<Door>, Path(name): Path<String>, request: Request) -> Response {
    match door.take_in(&name, request).await {
        Ok(response) => response,
        Err(problem) => told(problem),
    }
}

impl Door {
    async fn take_in(&self, name: &str, request: Request) -> Result<Response, Problem> {
        let bytes_max = self.api.webhook_bytes_max(name)?;
        let Ok(_place) = self.places.try_acquire() else {
            let said = format!("expected at most {AT_ONCE_MAX} messages at one time; send it again");
            return Err(Problem { retry_after: Some(AGAIN), ..Problem::new(503, "TOO_MANY_MESSAGES", &said) });
        };
        let (head, body) = request.into_parts();
        let body = read(body, bytes_max, BODY_WAIT_MAX).await?;
        match self.api.hear(name, head.headers, &body).await? {
            Heard::Accepted => Ok(json(StatusCode::ACCEPTED, r#"{"accepted":true}"#)),
            Heard::NotWanted => Ok(json(StatusCode::OK, r#"{"accepted":false,"reason":"NOT_WANTED"}"#)),
            // Its sender has not seen the first answer: it must not go on trying.
            Heard::Repeated => {
                let said = format!("webhook {name} has brought this message before; it started nothing again");
                Err(Problem::new(200, "WEBHOOK_REPEATED", &said))
            }
        }
    }
}

fn json(status: StatusCode, text: &'static str) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

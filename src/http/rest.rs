//! REST: `/api/v1`, every method of the services by verb and path, with the proto's JSON.
//!
//! A method that tells many things answers with server-sent events where the caller accepts them, else with a line of JSON
//! each; one that reads many takes a line each. Errors are problem+json. Must never know: what a method does.
//! Next: `grpc/transcode`, which knows the methods; `rest/origin`, which keeps foreign pages out.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Router, middleware};
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::grpc::transcode::{Asked, Problem, Tell, Transcoder, Wanted, openapi};

mod lines;
mod origin;

/// Bytes of one request's body, as for a message of gRPC.
const BODY_BYTES_MAX: usize = 4 << 20;
/// A body must be there by then, and a line of a stream after the one before it.
const BODY_WAIT_MAX: Duration = Duration::from_secs(30);
/// Streams open at one time. Each holds a connection; the rest of them is for requests.
const STREAMS_MAX: usize = 256;
/// A comment goes out when nothing else did for so long, so that proxies keep the stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Clone, Debug)]
struct Rest {
    methods: Transcoder,
    streams: Arc<Semaphore>,
}

/// Everything below `/api/v1`.
pub(super) fn router(methods: Transcoder) -> Router {
    Router::new()
        .route("/api/v1/openapi.json", get(described))
        .route("/api/v1/{*path}", any(answer))
        .with_state(Rest { methods, streams: Arc::new(Semaphore::new(STREAMS_MAX)) })
        .layer(middleware::from_fn(origin::check))
}

/// Made when it is asked for first: most daemons never are, and it takes some megabytes to make.
async fn described() -> impl IntoResponse {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(openapi().to_string()));
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone())
}

async fn answer(State(rest): State<Rest>, Extension(from): Extension<SocketAddr>, request: Request) -> Response {
    match rest.carry_out(from, request).await {
        Ok(response) => response,
        Err(problem) => told(problem),
    }
}

impl Rest {
    async fn carry_out(&self, from: SocketAddr, request: Request) -> Result<Response, Problem> {
        let (head, body) = request.into_parts();
        let found = match self.methods.find(&head.method, head.uri.path()) {
            Ok(found) => found,
            Err(wanted) => return Ok(not_there(&wanted, &head.method, head.uri.path())),
        };
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let asked = Asked {
            from,
            query: head.uri.query().unwrap_or_default(),
            traceparent: text("traceparent"),
            last_event_id: text("last-event-id"),
        };
        let as_events = text("accept").is_some_and(|accept| accept.contains("text/event-stream"));
        if found.reads_stream() {
            kind_is(&head.headers, &["application/x-ndjson", "application/jsonl", "application/json"])?;
            let place = self.place()?;
            let answers = self.methods.feed(&found, asked, lines::of(body)).await?;
            return Ok(stream(answers, as_events, place));
        }
        let body = read(body, BODY_BYTES_MAX).await?;
        if !body.is_empty() {
            kind_is(&head.headers, &["application/json"])?;
        }
        let body = std::str::from_utf8(&body).map_err(|_| Problem::new(400, "BAD_JSON", "expected UTF-8"))?;
        if found.tells_stream() {
            let place = self.place()?;
            let answers = self.methods.watch(&found, asked, body).await?;
            return Ok(stream(answers, as_events, place));
        }
        let json = self.methods.call(&found, asked, body).await?;
        Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
    }

    /// Of one stream, until it ends.
    fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            let said = format!("expected at most {STREAMS_MAX} open streams; close one, or use gRPC");
            Problem { retry_after: Some(Duration::from_secs(5)), ..Problem::new(503, "TOO_MANY_STREAMS", &said) }
        })
    }
}

/// A body within its bounds of size and time.
pub(super) async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let reading = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(BODY_WAIT_MAX, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large(bytes_max)),
        Ok(Err(e)) => Err(Problem::new(400, "BAD_BODY", &format!("the body could not be read: {e}"))),
        Err(_) => {
            let said = format!("expected the whole body within {} s", BODY_WAIT_MAX.as_secs());
            Err(Problem::new(408, "BODY_TOO_SLOW", &said))
        }
    }
}

fn too_large(bytes_max: usize) -> Problem {
    let said = format!("expected at most {bytes_max} bytes; hand more in with several requests");
    Problem::new(413, "ABOVE_CAP", &said)
}

/// A form of a foreign page cannot have these kinds, and a slip of curl's default is named.
fn kind_is(headers: &HeaderMap, kinds: &[&str]) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kinds.contains(&kind.as_str()) {
        return Ok(());
    }
    let said =
        format!("expected Content-Type: {}, got {given:?}; with curl, add -H 'Content-Type: {}'", kinds[0], kinds[0]);
    Err(Problem::new(415, "UNSUPPORTED_MEDIA_TYPE", &said))
}

fn stream(answers: Tell, as_events: bool, place: OwnedSemaphorePermit) -> Response {
    if as_events {
        return Sse::new(events(answers, place)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    }
    let lines = answers.map(move |told| {
        let _open = &place;
        // The last line of a stream that failed is the problem, told apart by its `reason` and `status`.
        let line = told.map_or_else(|problem| problem.json, |told| told.json);
        Ok::<_, std::convert::Infallible>(line + "\n")
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn events(answers: Tell, place: OwnedSemaphorePermit) -> impl Stream<Item = Result<Event, std::convert::Infallible>> {
    answers.map(move |told| {
        let _open = &place;
        Ok(match told {
            Ok(told) => {
                let event = Event::default().data(told.json);
                told.resume_token.map_or(event.clone(), |token| event.id(token))
            }
            Err(problem) => Event::default().event("problem").data(problem.json),
        })
    })
}

fn not_there(wanted: &Wanted, verb: &http::Method, path: &str) -> Response {
    match wanted {
        Wanted::OtherPath => {
            let said = format!("nothing at {path}; /api/v1/openapi.json tells what there is");
            told(Problem::new(404, "NO_SUCH_PATH", &said))
        }
        Wanted::OtherVerb(verbs) => {
            let verbs: Vec<&str> = verbs.iter().map(http::Method::as_str).collect();
            let allow = verbs.join(", ");
            let said = format!("expected {allow} for {path}, got {verb}");
            let mut response = told(Problem::new(405, "OTHER_METHOD", &said));
            if let Ok(value) = HeaderValue::from_str(&allow) {
                response.headers_mut().insert(header::ALLOW, value);
            }
            response
        }
    }
}

pub(super) fn told(problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], problem.json).into_response();
    if let Some(wait) = problem.retry_after {
        // Whole seconds, and never sooner than was meant.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

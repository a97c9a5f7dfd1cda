//! The wire: connections, bodies, waiting, and the connection reset that a fault asks for.
//!
//! The hot path is two short locks a request. The arrival is stamped inside the first one, so stamps are in the order
//! in which they are counted. Control requests live under `/__sim/` and are not arrivals. Next: `core`.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::{Faults, SimulatorConfig};
use super::core::{self, Core, Reply, Seen, Ticket};
use super::documents::Version;
use super::lists::Lists;
use super::log::{Arrival, Log, locked, positions};
use super::records::{Carried, Reader};
use super::report::Report;
use super::tokens::Tokens;
use crate::clock::Clock;

/// Connections at one time; more wait in the backlog.
const CONNECTIONS_MAX: usize = 10_000;
/// The largest body; a larger one gets 413.
const BODY_BYTES_MAX: usize = 64 << 20;
/// The largest body of a control request.
const CONTROL_BYTES_MAX: usize = 64 << 10;
/// How old a line of the arrival log may be before it is in the file.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// Wait after a failed accept, as when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    core: Mutex<Core>,
    /// The configuration as declared; the faults in force are in `core`.
    config: SimulatorConfig,
    account_header: Option<HeaderName>,
    reader: Reader,
    tokens: Option<Mutex<Tokens>>,
    lists: Mutex<Lists>,
    log: Log,
    clock: Clock,
    pub version: Version,
}

impl Shared {
    /// The configuration has been checked.
    pub fn new(config: SimulatorConfig, clock: Clock, log: Log) -> Self {
        let core = Core::new(config.clone(), clock.steady()).expect("the configuration was checked");
        let account_header = config.account_header.as_deref().and_then(|h| h.parse().ok());
        let reader = Reader::new(&config.records);
        let tokens = config.tokens.clone().map(|rules| Mutex::new(Tokens::new(rules)));
        let lists = Mutex::new(Lists::new(&config.lists));
        Shared {
            core: Mutex::new(core),
            config,
            account_header,
            reader,
            tokens,
            lists,
            log,
            clock,
            version: Version::default(),
        }
    }

    pub fn lists(&self) -> MutexGuard<'_, Lists> {
        locked(&self.lists)
    }

    pub fn report(&self) -> Report {
        let tokens = self.tokens.as_ref().map(|tokens| locked(tokens).report.clone()).unwrap_or_default();
        Report { tokens, ..locked(&self.core).report(self.clock.steady()) }
    }

    pub fn with_tokens(&self, change: impl FnOnce(&mut Tokens)) {
        if let Some(tokens) = &self.tokens {
            change(&mut locked(tokens));
        }
    }

    pub fn arrivals(&self) -> Vec<Arrival> {
        self.log.kept()
    }

    pub fn records(&self) -> Vec<(String, Seen)> {
        locked(&self.core).all_seen()
    }

    pub fn set_faults(&self, faults: Faults) {
        locked(&self.core).set_faults(faults);
    }

    pub fn set_max(&self, limit: &str, max: u32) -> bool {
        locked(&self.core).set_max(self.clock.steady(), limit, max)
    }

    pub fn reset(&self) {
        locked(&self.core).reset(self.clock.steady());
        self.log.forget_kept();
    }

    pub fn flush(&self) {
        self.log.flush();
    }
}

pub async fn flush_regularly(shared: Arc<Shared>, stopping: CancellationToken) {
    while stopping.run_until_cancelled(tokio::time::sleep(FLUSH_INTERVAL)).await.is_some() {
        shared.flush();
    }
}

/// Accepts until stopped. Connections end when the token does.
pub async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker, stopping: CancellationToken) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some(Ok(seat)) = stopping.run_until_cancelled(seats.clone().acquire_owned()).await {
        let stream = match stopping.run_until_cancelled(listener.accept()).await {
            None => return,
            Some(Ok((stream, _))) => stream,
            Some(Err(e)) => {
                tracing::warn!(error = %e, "the simulator cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = converse(stream, shared.clone(), tasks.clone());
        let stopping = stopping.clone();
        tasks.spawn(async move {
            stopping.run_until_cancelled(connection).await;
            drop(seat);
        });
    }
}

/// One connection to its end. HTTP/2 is recognised by its preface.
async fn converse(stream: TcpStream, shared: Arc<Shared>, tasks: TaskTracker) {
    // An answer must not wait for the client's acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let wire = Wire { stream, reset: reset.clone() };
    let service = service_fn(move |request| serve(shared.clone(), reset.clone(), request));
    let builder = auto::Builder::new(Tracked(tasks));
    // A broken connection is the client's affair, or a fault that was asked for.
    let _ = builder.serve_connection(TokioIo::new(wire), service).await;
}

/// The connection is to be reset, not answered.
#[derive(Debug, thiserror::Error)]
#[error("a reset was asked for")]
struct Withheld;

type Answer = Response<Full<Bytes>>;

async fn serve(shared: Arc<Shared>, reset: Arc<AtomicBool>, request: Request<Incoming>) -> Result<Answer, Withheld> {
    if request.uri().path().starts_with("/__sim/") {
        return Ok(control(&shared, request).await);
    }
    if let Some(tokens) = shared.tokens.as_ref().filter(|_| is_for_tokens(&shared, &request)) {
        return Ok(give_token(&shared, tokens, request).await);
    }
    let mut guest = Guest::receive(&shared, &request);
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is broken or too large"));
    };
    let reply = guest.judge(&head, &body.to_bytes());
    if !guest.ticket.delay.is_zero() {
        tokio::time::sleep(guest.ticket.delay).await;
    }
    match reply {
        Reply::Answer { status, headers, body } => {
            let mut answer = Response::new(Full::new(body));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let lines = answer.headers_mut();
            lines.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            lines.extend(headers);
            Ok(answer)
        }
        Reply::Silence => std::future::pending().await,
        Reply::Reset => {
            reset.store(true, Ordering::Relaxed);
            Err(Withheld)
        }
    }
}

/// A request from its head to its answer. Dropped when answered or when the client went away: then it leaves.
struct Guest<'a> {
    shared: &'a Shared,
    ticket: Ticket,
    account: String,
    /// Who it was, for the log, until the line is written.
    line: Option<Arrival>,
    judged: bool,
}

impl<'a> Guest<'a> {
    fn receive(shared: &'a Shared, request: &Request<Incoming>) -> Self {
        let account = match &shared.account_header {
            Some(name) => account_of(name, request.headers().get(name)),
            None => String::new(),
        };
        let (method, path) = (request.method().as_str(), request.uri().path());
        let known = shared
            .tokens
            .as_ref()
            .is_none_or(|tokens| locked(tokens).knows(shared.clock.steady(), request.headers(), request.uri().query()));
        let free = shared.config.documents.as_ref().is_some_and(|documents| {
            request.method() == Method::GET && documents.is_free(&shared.version, request.headers())
        });
        let mut core = locked(&shared.core);
        let mut ticket = match free {
            true => core.arrive_free(shared.clock.steady()),
            false => core.arrive(shared.clock.steady(), method, path, &account),
        };
        if !known && ticket.fate == core::Fate::Serve {
            (ticket.fate, ticket.mishap) = (core::Fate::Error(401), None);
        }
        let line = shared.log.is_on().then(|| Arrival {
            at_us: ticket.at.0,
            number: ticket.number,
            method: method.to_owned(),
            path: path.to_owned(),
            limits: core.counted_by(&ticket),
            account: account.clone(),
            idempotency_key: idempotency_key(request),
            ..Arrival::default()
        });
        drop(core);
        Guest { shared, ticket, account, line, judged: false }
    }

    /// Reading and writing JSON happens outside the lock: other arrivals must not wait for it.
    fn judge(&mut self, head: &http::request::Parts, body: &[u8]) -> Reply {
        let shared = self.shared;
        let carried = match shared.config.records.read {
            true => shared.reader.read(head.uri.path(), body),
            false => Carried { batch: false, records: Vec::new() },
        };
        let (judged, headers) = {
            let mut core = locked(&shared.core);
            let judged = core.judge(&self.ticket, &carried);
            let now = shared.clock.steady();
            (judged, core.headers(&self.ticket, &self.account, now, shared.clock.now()))
        };
        self.judged = true;
        let mut reply = core::reply(&shared.config, &self.ticket, &carried, &judged, headers);
        if let Reply::Answer { status: status @ 200, headers, body } = &mut reply
            && let Some(list) = shared.lists().answer(&head.method, &head.uri, &head.headers)
        {
            (*status, *body) = (list.status, list.body);
            headers.extend(list.headers);
        } else {
            reply = documented(shared, head, reply);
        }
        if let Some(line) = self.line.take() {
            let versions: Vec<Option<i64>> = carried.records.iter().map(|r| r.version).collect();
            shared.log.write(Arrival {
                versions: if versions.iter().all(Option::is_none) { Vec::new() } else { versions },
                records: carried.records.into_iter().map(|r| r.id).collect(),
                failed: positions(&judged.failed),
                unchanged: positions(&judged.unchanged),
                body_hash: digest(body),
                status: match &reply {
                    Reply::Answer { status, .. } => *status,
                    _ => judged.status,
                },
                withheld: match reply {
                    Reply::Answer { .. } => None,
                    Reply::Silence => Some("silence".to_owned()),
                    Reply::Reset => Some("reset".to_owned()),
                },
                ..line
            });
        }
        reply
    }
}

/// A GET that went well is answered with the document, or with a 304.
fn documented(shared: &Shared, head: &http::request::Parts, reply: Reply) -> Reply {
    match (&shared.config.documents, reply) {
        (Some(documents), Reply::Answer { status: 200, mut headers, .. }) if head.method == Method::GET => {
            let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
            let told = documents.tell(&shared.version, path, &head.headers);
            headers.extend(told.headers);
            Reply::Answer { status: told.status, headers, body: told.body }
        }
        (_, reply) => reply,
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let mut core = locked(&self.shared.core);
        core.leave(&self.ticket, &self.account);
        if !self.judged {
            core.cut();
        }
        drop(core);
        if let Some(line) = self.line.take() {
            self.shared.log.write(line);
        }
    }
}

fn is_for_tokens(shared: &Shared, request: &Request<Incoming>) -> bool {
    shared.config.tokens.as_ref().is_some_and(|rules| rules.path == request.uri().path())
}

async fn give_token(shared: &Shared, tokens: &Mutex<Tokens>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let Ok(form) = Limited::new(body, CONTROL_BYTES_MAX).collect().await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "expected a form of at most 64 KiB");
    };
    let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (now, form) = (shared.clock.steady(), form.to_bytes());
    let (status, body) = locked(tokens).ask(now, authorization, &form);
    let latency = locked(tokens).rules().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// A credential never goes into a log: its digest tells accounts apart as well.
fn account_of(name: &HeaderName, value: Option<&HeaderValue>) -> String {
    let secret = [header::AUTHORIZATION, header::COOKIE].contains(name) || name.as_str().contains("key");
    match value {
        None => String::new(),
        Some(value) if secret => digest(value.as_bytes()),
        Some(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
    }
}

fn idempotency_key(request: &Request<Incoming>) -> Option<String> {
    let value = request.headers().get("idempotency-key")?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).fold(String::with_capacity(16), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing into a string cannot fail");
        text
    })
}

/// `GET report`, `GET records/{id}`, `GET config`, `POST reset`, `POST revoke`, `POST documents`, `PUT faults` (JSON),
/// `DELETE faults`.
async fn control(shared: &Shared, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().trim_start_matches("/__sim/").to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "report") => json(&shared.report()),
        (&Method::GET, "config") => json(locked(&shared.core).config()),
        (&Method::GET, path) if path.starts_with("records/") => {
            let id: Cow<'_, str> =
                percent_encoding::percent_decode_str(path.trim_start_matches("records/")).decode_utf8_lossy();
            match locked(&shared.core).seen(&id) {
                Some(seen) => json(&serde_json::json!({ "id": id, "version": seen.version, "times": seen.times })),
                None => plain(StatusCode::NOT_FOUND, "no such record was taken"),
            }
        }
        (&Method::POST, "revoke") => {
            shared.with_tokens(Tokens::revoke);
            plain(StatusCode::OK, "all access tokens have ended")
        }
        (&Method::POST, "reset") => {
            shared.reset();
            plain(StatusCode::OK, "reset")
        }
        (&Method::POST, "documents") => {
            shared.version.bump();
            plain(StatusCode::OK, "all documents changed")
        }
        (&Method::DELETE, "faults") => {
            shared.set_faults(Faults::default());
            plain(StatusCode::OK, "no faults")
        }
        (&Method::PUT, "faults") => match Limited::new(request.into_body(), CONTROL_BYTES_MAX).collect().await {
            Ok(body) => match change_faults(shared, &body.to_bytes()) {
                Ok(()) => plain(StatusCode::OK, "faults changed"),
                Err(problem) => plain(StatusCode::BAD_REQUEST, &problem),
            },
            Err(_) => plain(StatusCode::PAYLOAD_TOO_LARGE, "expected at most 64 KiB of JSON"),
        },
        _ => plain(
            StatusCode::NOT_FOUND,
            "expected GET report, GET config, GET records/{id}, POST reset, POST revoke, POST documents, PUT faults or \
             DELETE faults",
        ),
    }
}

fn change_faults(shared: &Shared, body: &[u8]) -> Result<(), String> {
    let faults: Faults = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let changed = SimulatorConfig { faults: faults.clone(), limits: Vec::new(), ..shared.config.clone() };
    changed.check().map_err(|e| e.to_string())?;
    shared.set_faults(faults);
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Answer {
    let mut body = serde_json::to_vec_pretty(value).expect("reports always serialize");
    body.push(b'\n');
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn plain(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *answer.status_mut() = status;
    answer
}

/// Tasks of HTTP/2 streams are tracked too, so that stopping waits for all.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// A TCP connection that can be made to end in a reset.
struct Wire {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // Closing with nothing to linger for sends RST.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // A polite end would come before the reset.
        if self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

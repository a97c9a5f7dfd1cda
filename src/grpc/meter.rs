//! Counts every call that the server answers: method, status, time until the last byte of the answer.
//!
//! Must never know: what a call does. Next: `telemetry/metrics.rs`.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::Code;
use tower::{Layer, Service};

use super::json;
use crate::clock::{Clock, Timestamp};
use crate::telemetry::Metrics;
use crate::telemetry::family::{OTHER, RpcCall, Text};

/// What a call that was given up by its client counts as.
const CANCELLED: usize = Code::Cancelled as usize;

/// Names of all statuses, by number.
const STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Wraps the services of a server.
#[derive(Clone, Debug)]
pub(super) struct Meter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    metrics: Metrics,
    /// Paths of our own methods. Others count as one, since a client may ask for any path.
    methods: HashMap<String, Text>,
    other: Text,
    statuses: Vec<Text>,
}

impl Meter {
    pub(super) fn new(clock: Clock, metrics: Metrics) -> Self {
        let services = json::pool().services();
        let methods = services.flat_map(|service| {
            let of = service.full_name().to_owned();
            service.methods().map(move |method| format!("{of}/{}", method.name())).collect::<Vec<_>>()
        });
        let methods = methods.map(|name| (format!("/{name}"), Text::from(name))).collect();
        let statuses = STATUSES.into_iter().map(Text::from).collect();
        Meter(Arc::new(Inner { clock, metrics, methods, other: Text::from(OTHER), statuses }))
    }
}

impl<S> Layer<S> for Meter {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered { inner, meter: self.clone() }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Metered<S> {
    inner: S,
    meter: Meter,
}

impl<S, B, A> Service<Request<B>> for Metered<S>
where
    S: Service<Request<B>, Response = Response<A>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Counted<A>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let of = &self.meter.0;
        let method = of.methods.get(request.uri().path()).unwrap_or(&of.other).clone();
        // Dropped with the future or with the answer's body, whichever comes first: then the call is over.
        let mut call = Call { meter: self.meter.clone(), method, began_at: of.clock.steady(), status: CANCELLED };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let (head, body) = answer.await?.into_parts();
            // An answer without a body carries its status in the head.
            call.read(&head.headers);
            Ok(Response::from_parts(head, Counted { body, call }))
        })
    }
}

/// One call under way.
#[derive(Debug)]
struct Call {
    meter: Meter,
    method: Text,
    began_at: Timestamp,
    status: usize,
}

impl Call {
    fn read(&mut self, headers: &HeaderMap) {
        let status = headers.get("grpc-status").and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        if let Some(status) = status {
            self.status = if status < STATUSES.len() { status } else { Code::Unknown as usize };
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let of = &self.meter.0;
        let call =
            RpcCall { rpc_method: self.method.clone(), rpc_response_status_code: of.statuses[self.status].clone() };
        of.metrics.rpc_call(&call, of.clock.steady().since(self.began_at));
    }
}

/// An answer's body that sees the status go by.
#[derive(Debug)]
pub(super) struct Counted<A> {
    body: A,
    call: Call,
}

impl<A: Body<Data = Bytes> + Unpin> Body for Counted<A> {
    type Data = Bytes;
    type Error = A::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, A::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.read(trailers);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! One clock per phase of a call: connecting, waiting for the status, reading the body, and all of it together.
//!
//! The connector runs inside the future that waits for the status, so it leaves word (`CONNECTING`) whenever it was
//! polled. That tells apart what ends a call before a byte left from what ends it after, and lets the first-byte clock
//! start when the connection is there. Must never know: bodies, what an answer means. Next: `wire.rs`.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Sleep, sleep};
use tower::{Layer, Service};

use super::Request;
use crate::model::provider::Timeouts;
use crate::model::verdict::{Failure, Sent};

tokio::task_local! {
    /// Was the connector at work in this poll of the call?
    static CONNECTING: Cell<bool>;
}

#[derive(Clone, Debug)]
pub(super) struct DeadlineLayer(Timeouts);

impl DeadlineLayer {
    pub fn new(timeouts: Timeouts) -> Self {
        DeadlineLayer(timeouts)
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;
    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { timeouts: self.0, inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Deadline<S> {
    timeouts: Timeouts,
    inner: S,
}

/// An answer whose body is still on the way, with the clocks that go on.
#[derive(Debug)]
pub(super) struct Reply {
    pub response: reqwest::Response,
    total: Pin<Box<Sleep>>,
    idle: Duration,
}

impl Reply {
    /// The next piece of the body; `Ok(None)` at its end, `Err` when it broke off or took too long.
    pub async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, Cut> {
        let mut next = pin!(self.response.chunk());
        // Most bodies are there already, and then no timer is touched.
        let mut idle = pin!(None);
        let (total, limit) = (&mut self.total, self.idle);
        poll_fn(|cx| {
            if let Poll::Ready(piece) = next.as_mut().poll(cx) {
                return Poll::Ready(piece.map_err(|_| Cut));
            }
            if idle.is_none() {
                idle.set(Some(sleep(limit)));
            }
            let idled = idle.as_mut().as_pin_mut().is_some_and(|sleep| sleep.poll(cx).is_ready());
            if idled || total.as_mut().poll(cx).is_ready() { Poll::Ready(Err(Cut)) } else { Poll::Pending }
        })
        .await
    }
}

/// The body ended before its end.
#[derive(Debug)]
pub(super) struct Cut;

impl<S> Service<Request> for Deadline<S>
where
    S: Service<Request, Response = reqwest::Response, Error = Failure>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Reply, Failure>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let sent = self.inner.call(request);
        Box::pin(CONNECTING.scope(Cell::new(false), head(sent, self.timeouts)))
    }
}

/// Waits for the status line.
async fn head<F>(sent: F, timeouts: Timeouts) -> Result<Reply, Failure>
where
    F: Future<Output = Result<reqwest::Response, Failure>>,
{
    let mut sent = pin!(sent);
    let mut total = Box::pin(sleep(timeouts.total));
    let mut first_byte = pin!(sleep(timeouts.first_byte));
    let mut connected_late = false;
    let response = poll_fn(|cx| {
        CONNECTING.with(|c| c.set(false));
        if let Poll::Ready(answer) = sent.as_mut().poll(cx) {
            return Poll::Ready(answer);
        }
        let connecting = CONNECTING.with(Cell::get);
        if total.as_mut().poll(cx).is_ready() {
            let phase = if connecting { Sent::No } else { Sent::Maybe };
            return Poll::Ready(Err(late(phase, "the whole call", timeouts.total)));
        }
        if connecting {
            // The client's own connect timeout watches this phase.
            connected_late = true;
            return Poll::Pending;
        }
        if std::mem::take(&mut connected_late) {
            first_byte.set(sleep(timeouts.first_byte));
        }
        match first_byte.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(late(Sent::Maybe, "the status line", timeouts.first_byte))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await?;
    Ok(Reply { response, total, idle: timeouts.idle })
}

fn late(sent: Sent, what: &str, after: Duration) -> Failure {
    let phase = if sent == Sent::No { " while connecting" } else { "" };
    let reason = format!("no answer{phase}: waited {after:?} for {what}");
    Failure { sent, provider_fault: true, reason: reason.into() }
}

/// Wraps the client's connector so that it leaves word while it works.
#[derive(Clone, Debug)]
pub(super) struct ConnectingLayer;

impl<S> Layer<S> for ConnectingLayer {
    type Service = Connecting<S>;
    fn layer(&self, inner: S) -> Connecting<S> {
        Connecting(inner)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Connecting<S>(S);

impl<R, S: Service<R>> Service<R> for Connecting<S>
where
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let mut connecting = Box::pin(self.0.call(target));
        Box::pin(poll_fn(move |cx| {
            let polled = connecting.as_mut().poll(cx);
            if polled.is_pending() {
                // Outside of a call when the client finishes a connection in the background: then nobody asks.
                let _ = CONNECTING.try_with(|c| c.set(true));
            }
            polled
        }))
    }
}

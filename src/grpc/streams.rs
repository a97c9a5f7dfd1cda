//! Server streams without tasks: each is polled by its connection, so it ends when its reader does.
//!
//! Must never know: what is told. Next: `grpc/job_service`.

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream::{self, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::api::{Error, Result};

/// Messages of a client stream that are worked on at a time. Their answers keep the order.
pub(super) const MESSAGES_IN_FLIGHT: usize = 8;

pub(super) type Told<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Tells what `next` yields until it has nothing more, fails, or the server stops.
pub(super) fn tell<W, T, F>(watch: W, stop: CancellationToken, next: F) -> Told<T>
where
    W: Send + 'static,
    T: Send + 'static,
    F: for<'w> Fn(&'w mut W) -> Pin<Box<dyn Future<Output = Result<Option<T>>> + Send + 'w>> + Send + Copy + 'static,
{
    Box::pin(stream::unfold(Some((watch, stop)), move |state| async move {
        let (mut watch, stop) = state?;
        let told = tokio::select! {
            biased;
            () = stop.cancelled() => Err(Error::draining()),
            told = next(&mut watch) => told,
        };
        match told {
            Ok(Some(item)) => Some((Ok(item), Some((watch, stop)))),
            Ok(None) => None,
            Err(error) => Some((Err(error.into()), None)),
        }
    }))
}

/// Answers each message of a client, in order, until one fails or the client is done. When the server stops, no more
/// messages are read; those that were are answered, and a last word says that there is an end.
pub(super) fn answer<Q, A, F, Fut>(messages: Streaming<Q>, stop: CancellationToken, mut work: F) -> Told<A>
where
    Q: Send + 'static,
    A: Send + 'static,
    F: FnMut(Q) -> Fut + Send + 'static,
    Fut: Future<Output = Result<A>> + Send + 'static,
{
    let stopped = stop.clone();
    let answers =
        messages
            .take_until(stop.cancelled_owned())
            .map(move |message| {
                // Called in the order of the messages, so what `work` notes before its future runs is in order too.
                let working = message.map(&mut work);
                async move {
                    match working {
                        Ok(working) => working.await.map_err(Status::from),
                        Err(status) => Err(status),
                    }
                }
            })
            .buffered(MESSAGES_IN_FLIGHT)
            .chain(stream::once(async move { stopped }).filter_map(|stopped| async move {
                stopped.is_cancelled().then(|| Err(Status::from(Error::draining())))
            }));
    Box::pin(until_failure(answers))
}

/// Ends a stream after its first error.
fn until_failure<T>(
    inner: impl Stream<Item = Result<T, Status>> + Send,
) -> impl Stream<Item = Result<T, Status>> + Send {
    let state = Some(Box::pin(inner));
    stream::unfold(state, |state| async move {
        let mut inner = state?;
        let item = inner.next().await?;
        let rest = item.is_ok().then_some(inner);
        Some((item, rest))
    })
}

/// Checks that the messages of a stream are numbered upwards.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    last: i64,
}

impl Numbers {
    pub(super) fn check(&mut self, sequence: i64) -> Result<()> {
        if sequence <= self.last {
            let said = format!("expected a number above {}, got {sequence}", self.last);
            return Err(Error::field("sequence", "SEQUENCE_NOT_INCREASING", said));
        }
        self.last = sequence;
        Ok(())
    }
}

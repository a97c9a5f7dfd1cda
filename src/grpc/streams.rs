//! Server streams without tasks: each is polled by its connection, so it ends when its reader does.
//!
//! Must never know: what is told. Next: `grpc/job_service`.

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream::{self, StreamExt};
use tonic::{Status, Streaming};

use crate::api::{Error, Result};

/// Messages of a client stream that are worked on at a time. Their answers keep the order.
pub(super) const MESSAGES_IN_FLIGHT: usize = 8;

pub(super) type Told<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Tells what `next` yields until it has nothing more or fails.
pub(super) fn tell<W, T, F>(watch: W, next: F) -> Told<T>
where
    W: Send + 'static,
    T: Send + 'static,
    F: for<'w> Fn(&'w mut W) -> Pin<Box<dyn Future<Output = Result<Option<T>>> + Send + 'w>> + Send + Copy + 'static,
{
    Box::pin(stream::unfold(Some(watch), move |watch| async move {
        let mut watch = watch?;
        match next(&mut watch).await {
            Ok(Some(item)) => Some((Ok(item), Some(watch))),
            Ok(None) => None,
            Err(error) => Some((Err(error.into()), None)),
        }
    }))
}

/// Answers each message of a client, in order, until one fails or the client is done.
pub(super) fn answer<Q, A, F, Fut>(messages: Streaming<Q>, mut work: F) -> Told<A>
where
    Q: Send + 'static,
    A: Send + 'static,
    F: FnMut(Q) -> Fut + Send + 'static,
    Fut: Future<Output = Result<A>> + Send + 'static,
{
    let answers = messages
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
        .buffered(MESSAGES_IN_FLIGHT);
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

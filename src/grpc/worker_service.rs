//! WorkerService on the wire: one stream per worker, polled by its connection.
//!
//! A worker that does not read is not listened to either, so it loses what it holds. Must never know: policy. Next:
//! `api/workers`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::convert::workers as to;
use super::pb;
use super::pb::work_request::What;
use super::streams::{Told, tell};
use crate::api::workers::{Joined, Next, Worker};
use crate::api::{Api, Code, Error, Result};

/// Longest wait for the first message.
const HELLO_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(super) struct Workers {
    pub api: Api,
    /// The server stops: streams end.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl pb::worker_service_server::WorkerService for Workers {
    type WorkStream = Told<pb::WorkResponse>;

    async fn work(&self, request: Request<Streaming<pb::WorkRequest>>) -> Result<Response<Self::WorkStream>, Status> {
        let stream =
            Stream { api: self.api.clone(), says: request.into_inner(), worker: None, answers: VecDeque::new() };
        Ok(Response::new(tell(stream, self.stop.clone(), next)))
    }
}

/// One worker's stream.
struct Stream {
    api: Api,
    says: Streaming<pb::WorkRequest>,
    /// `None`: it has not introduced itself.
    worker: Option<Worker>,
    /// What is to be told first: the welcome, and at most one end per lease that was asked for.
    answers: VecDeque<pb::WorkResponse>,
}

fn next(stream: &mut Stream) -> Pin<Box<dyn Future<Output = Result<Option<pb::WorkResponse>>> + Send + '_>> {
    Box::pin(stream.next())
}

impl Stream {
    async fn next(&mut self) -> Result<Option<pb::WorkResponse>> {
        if self.worker.is_none() && !self.introduce().await? {
            return Ok(None);
        }
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(Some(answer));
            }
            let Some(worker) = &mut self.worker else { return Ok(None) };
            let said = tokio::select! {
                said = self.says.message() => said,
                next = worker.next() => return match next {
                    Next::Told(told) => Ok(Some(to::told(told))),
                    Next::Unread => {
                        Err(Error::new(Code::ResourceExhausted, "NOT_READ", "the worker does not read its stream"))
                    }
                    Next::Silent => Err(Error::new(Code::DeadlineExceeded, "NO_HEARTBEAT", "the worker was not heard")),
                },
            };
            // A stream that broke or ended: what the worker holds waits for its return.
            let Ok(Some(message)) = said else { return Ok(None) };
            let worker = &*worker;
            worker.heard();
            self.answers.extend(hear(worker, message).await?);
        }
    }

    /// Reads the first message. False: there was none.
    async fn introduce(&mut self) -> Result<bool> {
        let expected = || Error::field("hello", "HELLO_FIRST", "expected `hello` as first message");
        let first = match tokio::time::timeout(HELLO_MAX, self.says.message()).await {
            Err(_) => return Err(Error::new(Code::DeadlineExceeded, "NO_HELLO", "no `hello` came in 10 seconds")),
            Ok(Ok(Some(first))) => first,
            Ok(_) => return Ok(false),
        };
        let Some(What::Hello(hello)) = first.what else { return Err(expected()) };
        let joined = self.api.join_worker(to::hello(hello)).await?;
        self.answers.push_back(to::welcome(&joined));
        let Joined { worker, ended, .. } = joined;
        self.answers.extend(ended.into_iter().map(to::ended));
        self.worker = Some(worker);
        Ok(true)
    }
}

async fn hear(worker: &Worker, message: pb::WorkRequest) -> Result<Option<pb::WorkResponse>> {
    let ended = match message.what {
        Some(What::Heartbeat(_)) => None,
        Some(What::Progress(told)) => worker.progress(&told.token, told.fraction, &told.text).await?,
        Some(What::Completed(told)) => worker.completed(&told.token, &told.result).await?,
        Some(What::Failed(told)) => {
            let (failure, retry_after) = to::failure(&told)?;
            worker.failed(&told.token, &told.reason, failure, retry_after).await?
        }
        Some(What::Hello(_)) => return Err(Error::field("hello", "HELLO_ONCE", "`hello` is the first message only")),
        None => return Err(Error::field("what", "EMPTY_MESSAGE", "expected something to be said")),
    };
    Ok(ended.map(to::ended))
}

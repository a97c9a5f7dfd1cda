//! RunService on the wire: decode, convert, ask `api`, convert back.
//!
//! Must never know: policy. Next: `api/runs`, `api/watch/run`.

use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::convert::jobs::{results, specs};
use super::convert::runs as to;
use super::pb;
use super::server::{handing_in, unary};
use super::streams::{Numbers, Told, answer, tell};
use crate::api::enqueue::How;
use crate::api::{Api, Error, Result};
use crate::model::id::RunId;
use crate::model::name::Tenant;
use crate::model::run::RunWish;

#[derive(Clone, Debug)]
pub(super) struct Runs {
    pub api: Api,
    /// The server stops: streams end.
    pub stop: CancellationToken,
}

impl Runs {
    async fn wish(&self, run_id: &str, wish: RunWish) -> Result<Option<pb::Run>> {
        Ok(Some(to::run(self.api.wish_run(run_id, wish).await?)))
    }
}

/// The run of an AddRunJobs stream: named by its first message, looked up once.
#[derive(Debug)]
struct Target {
    named: String,
    found: OnceCell<(RunId, Tenant)>,
}

impl Target {
    async fn get(&self, api: &Api) -> Result<&(RunId, Tenant)> {
        self.found.get_or_try_init(|| api.run_tenant(&self.named)).await
    }
}

#[tonic::async_trait]
impl pb::run_service_server::RunService for Runs {
    async fn create_run(
        &self,
        request: Request<pb::CreateRunRequest>,
    ) -> Result<Response<pb::CreateRunResponse>, Status> {
        let spec = to::run_spec(request.into_inner());
        unary(async { Ok(pb::CreateRunResponse { run: Some(to::run(self.api.create_run(spec).await?)) }) }).await
    }

    type AddRunJobsStream = Told<pb::AddRunJobsResponse>;

    async fn add_run_jobs(
        &self,
        request: Request<Streaming<pb::AddRunJobsRequest>>,
    ) -> Result<Response<Self::AddRunJobsStream>, Status> {
        let (_span, trace) = handing_in("enqueue run", request.metadata(), None);
        let api = self.api.clone();
        let mut numbers = Numbers::default();
        let mut target: Option<Arc<Target>> = None;
        // Held by every message while it works; a message that seals waits for all of them.
        let working = Arc::new(tokio::sync::RwLock::new(()));
        let answers = answer(request.into_inner(), self.stop.clone(), move |message: pb::AddRunJobsRequest| {
            let checked = numbers.check(message.sequence).and_then(|()| aim(&mut target, &message.run_id));
            let (api, specs) = (api.clone(), specs(message.jobs, trace.as_deref()));
            let turn = if message.seal { Turn::Last(working.clone()) } else { Turn::Any(working.clone()) };
            async move { add(&api, checked?.as_ref(), message.sequence, specs, turn).await }
        });
        Ok(Response::new(answers))
    }

    async fn seal_run(&self, request: Request<pb::SealRunRequest>) -> Result<Response<pb::SealRunResponse>, Status> {
        let id = request.into_inner().run_id;
        unary(async { Ok(pb::SealRunResponse { run: self.wish(&id, RunWish::Seal).await? }) }).await
    }

    async fn get_run(&self, request: Request<pb::GetRunRequest>) -> Result<Response<pb::GetRunResponse>, Status> {
        let id = request.into_inner().run_id;
        unary(async { Ok(pb::GetRunResponse { run: Some(to::run(self.api.get_run(&id).await?)) }) }).await
    }

    async fn list_runs(&self, request: Request<pb::ListRunsRequest>) -> Result<Response<pb::ListRunsResponse>, Status> {
        let request = request.into_inner();
        unary(async {
            let page = self.api.list_runs(request.page_size, &request.page_token).await?;
            let runs = page.items.into_iter().map(to::run).collect();
            Ok(pb::ListRunsResponse { runs, next_page_token: page.next_page_token })
        })
        .await
    }

    async fn pause_run(&self, request: Request<pb::PauseRunRequest>) -> Result<Response<pb::PauseRunResponse>, Status> {
        let id = request.into_inner().run_id;
        unary(async { Ok(pb::PauseRunResponse { run: self.wish(&id, RunWish::Pause).await? }) }).await
    }

    async fn resume_run(
        &self,
        request: Request<pb::ResumeRunRequest>,
    ) -> Result<Response<pb::ResumeRunResponse>, Status> {
        let id = request.into_inner().run_id;
        unary(async { Ok(pb::ResumeRunResponse { run: self.wish(&id, RunWish::Resume).await? }) }).await
    }

    async fn cancel_run(
        &self,
        request: Request<pb::CancelRunRequest>,
    ) -> Result<Response<pb::CancelRunResponse>, Status> {
        let id = request.into_inner().run_id;
        unary(async { Ok(pb::CancelRunResponse { run: self.wish(&id, RunWish::Cancel).await? }) }).await
    }

    async fn undo_run(&self, request: Request<pb::UndoRunRequest>) -> Result<Response<pb::UndoRunResponse>, Status> {
        let pb::UndoRunRequest { run_id, validate_only } = request.into_inner();
        unary(async { Ok(to::undone(self.api.undo_run(&run_id, validate_only).await?)) }).await
    }

    type WatchRunStream = Told<pb::WatchRunResponse>;

    async fn watch_run(&self, request: Request<pb::WatchRunRequest>) -> Result<Response<Self::WatchRunStream>, Status> {
        let pb::WatchRunRequest { run_id, resume_token } = request.into_inner();
        let watch = self.api.watch_run(&run_id, &resume_token).await?;
        Ok(Response::new(tell(watch, self.stop.clone(), |watch| {
            Box::pin(async { watch.next().await.map(|item| item.map(to::run_item)) })
        })))
    }
}

/// The run that a message adds to: the one named first, which later messages may repeat but not change.
fn aim(target: &mut Option<Arc<Target>>, named: &str) -> Result<Arc<Target>> {
    match target {
        Some(known) if named.is_empty() || named == known.named => Ok(Arc::clone(known)),
        Some(known) => {
            let said = format!("expected {} as in the first message, or nothing, got {named:?}", known.named);
            Err(Error::field("run_id", "OTHER_RUN", said))
        }
        None => {
            let first = Arc::new(Target { named: named.to_owned(), found: OnceCell::new() });
            *target = Some(Arc::clone(&first));
            Ok(first)
        }
    }
}

/// Several messages are worked on at a time, but a seal must come after all jobs before it.
enum Turn {
    Any(Arc<tokio::sync::RwLock<()>>),
    Last(Arc<tokio::sync::RwLock<()>>),
}

async fn add(
    api: &Api,
    target: &Target,
    sequence: i64,
    specs: Vec<Result<crate::api::enqueue::Spec>>,
    turn: Turn,
) -> Result<pb::AddRunJobsResponse> {
    let sealed = matches!(turn, Turn::Last(_));
    let (run, tenant) = target.get(api).await?;
    // tokio's lock is fair, and messages ask for it in their order.
    let _turn = match turn {
        Turn::Any(lock) => (Some(lock.read_owned().await), None),
        Turn::Last(lock) => (None, Some(lock.write_owned().await)),
    };
    let (mut told, mut accepted_count) = (Vec::new(), 0);
    if !(specs.is_empty() && sealed) {
        let how = How { run: Some((*run, tenant)), ..How::default() };
        (told, accepted_count) = results(api.enqueue_jobs(specs, how).await?);
    }
    if sealed {
        api.wish_run(&run.to_string(), RunWish::Seal).await?;
    }
    Ok(pb::AddRunJobsResponse { sequence, results: told, accepted_count, sealed })
}

//! JobService on the wire: decode, convert, ask `api`, convert back.
//!
//! Must never know: policy. Next: `api/enqueue`, `api/jobs`, `api/bulk`, `api/watch`.

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use super::convert::jobs as to;
use super::convert::{call_log, is_full, state, time};
use super::pb;
use super::server::{handing_in, unary};
use super::streams::{Numbers, Told, answer, tell};
use crate::api::bulk::Action;
use crate::api::enqueue::{How, is_traceparent};
use crate::api::jobs::Waits;
use crate::api::watch::WatchJobs;
use crate::api::{Api, Result};

#[derive(Clone, Debug)]
pub(super) struct Jobs {
    pub api: Api,
    /// The server stops: streams end.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl pb::job_service_server::JobService for Jobs {
    async fn enqueue_job(
        &self,
        request: Request<pb::EnqueueJobRequest>,
    ) -> Result<Response<pb::EnqueueJobResponse>, Status> {
        let own = request.get_ref().job.as_ref().map(|job| job.traceparent.as_str());
        let (span, trace) = handing_in("enqueue job", request.metadata(), own);
        let pb::EnqueueJobRequest { job, request_id, validate_only } = request.into_inner();
        let how = How { request_id: &request_id, validate_only, run: None };
        let mut spec = to::spec(job.unwrap_or_default(), None).map_err(|e| e.under("job"))?;
        // What a job brought and is none is left as it is, for `api` to refuse.
        if let Some(trace) = trace.filter(|_| spec.traceparent.is_empty() || is_traceparent(&spec.traceparent)) {
            spec.traceparent = trace;
        }
        unary(async {
            let done = self.api.enqueue_job(spec, how).await.map_err(|e| e.under("job"))?;
            let (job_id, acceptance) = to::outcome(done);
            Ok(pb::EnqueueJobResponse { job_id, acceptance: acceptance as i32 })
        })
        .instrument(span)
        .await
    }

    async fn enqueue_jobs(
        &self,
        request: Request<pb::EnqueueJobsRequest>,
    ) -> Result<Response<pb::EnqueueJobsResponse>, Status> {
        let (span, trace) = handing_in("enqueue jobs", request.metadata(), None);
        let pb::EnqueueJobsRequest { jobs, request_id, validate_only } = request.into_inner();
        let how = How { request_id: &request_id, validate_only, run: None };
        unary(async {
            let all = self.api.enqueue_jobs(to::specs(jobs, trace.as_deref()), how).await?;
            let (results, accepted_count) = to::results(all);
            Ok(pb::EnqueueJobsResponse { results, accepted_count })
        })
        .instrument(span)
        .await
    }

    type EnqueueStreamStream = Told<pb::EnqueueStreamResponse>;

    async fn enqueue_stream(
        &self,
        request: Request<Streaming<pb::EnqueueStreamRequest>>,
    ) -> Result<Response<Self::EnqueueStreamStream>, Status> {
        let (_span, trace) = handing_in("enqueue stream", request.metadata(), None);
        let api = self.api.clone();
        let mut numbers = Numbers::default();
        let answers = answer(request.into_inner(), self.stop.clone(), move |message: pb::EnqueueStreamRequest| {
            let numbered = numbers.check(message.sequence);
            let (api, specs) = (api.clone(), to::specs(message.jobs, trace.as_deref()));
            async move {
                numbered?;
                let (results, accepted_count) = to::results(api.enqueue_jobs(specs, How::default()).await?);
                Ok(pb::EnqueueStreamResponse { sequence: message.sequence, results, accepted_count })
            }
        });
        Ok(Response::new(answers))
    }

    async fn get_job(&self, request: Request<pb::GetJobRequest>) -> Result<Response<pb::GetJobResponse>, Status> {
        let request = request.into_inner();
        let full = is_full("view", request.view, true)?;
        unary(async {
            let (view, calls) = self.api.get_job(&request.job_id).await?;
            let calls = calls.into_iter().map(|call| call_log::call(call, false)).collect();
            Ok(pb::GetJobResponse { job: Some(to::job_view(view, full)), calls })
        })
        .await
    }

    async fn list_jobs(&self, request: Request<pb::ListJobsRequest>) -> Result<Response<pb::ListJobsResponse>, Status> {
        let request = request.into_inner();
        let full = is_full("view", request.view, false)?;
        unary(async {
            let page = self.api.list_jobs(&request.filter, request.page_size, &request.page_token).await?;
            let jobs = page.items.into_iter().map(|view| to::job_view(view, full)).collect();
            Ok(pb::ListJobsResponse { jobs, next_page_token: page.next_page_token })
        })
        .await
    }

    async fn wait_jobs(&self, request: Request<pb::WaitJobsRequest>) -> Result<Response<pb::WaitJobsResponse>, Status> {
        let request = request.into_inner();
        let (state, timeout) = to::wait(&request)?;
        // Has its own bound, which is longer than that of other calls.
        let waited = self.api.wait_jobs(&request.job_ids, state, timeout).await?;
        Ok(Response::new(pb::WaitJobsResponse {
            jobs: waited.jobs.into_iter().map(|view| to::job_view(view, false)).collect(),
            done: waited.done,
            missing_job_ids: waited.missing.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn cancel_jobs(
        &self,
        request: Request<pb::CancelJobsRequest>,
    ) -> Result<Response<pb::CancelJobsResponse>, Status> {
        let r = request.into_inner();
        let which = to::which(r.job_ids, r.filter, r.validate_only, r.request_id);
        unary(async {
            let done = self.api.bulk(Action::Cancel, which).await?;
            Ok(pb::CancelJobsResponse { result: Some(to::done(done)) })
        })
        .await
    }

    async fn retry_jobs(
        &self,
        request: Request<pb::RetryJobsRequest>,
    ) -> Result<Response<pb::RetryJobsResponse>, Status> {
        let r = request.into_inner();
        let which = to::which(r.job_ids, r.filter, r.validate_only, r.request_id);
        unary(async {
            let done = self.api.bulk(Action::Retry { fresh: r.as_new }, which).await?;
            Ok(pb::RetryJobsResponse { result: Some(to::done(done)) })
        })
        .await
    }

    async fn edit_job(&self, request: Request<pb::EditJobRequest>) -> Result<Response<pb::EditJobResponse>, Status> {
        let (id, edit) = to::edit(request.into_inner())?;
        unary(async {
            let view = self.api.edit_job(&id, edit).await?;
            Ok(pb::EditJobResponse { job: Some(to::job_view(view, true)) })
        })
        .await
    }

    async fn resolve_jobs(
        &self,
        request: Request<pb::ResolveJobsRequest>,
    ) -> Result<Response<pb::ResolveJobsResponse>, Status> {
        let r = request.into_inner();
        let decision = to::decision(r.decision)?;
        let which = to::which(r.job_ids, r.filter, r.validate_only, r.request_id);
        unary(async {
            let done = self.api.bulk(Action::Resolve(decision), which).await?;
            Ok(pb::ResolveJobsResponse { result: Some(to::done(done)) })
        })
        .await
    }

    async fn explain_job(
        &self,
        request: Request<pb::ExplainJobRequest>,
    ) -> Result<Response<pb::ExplainJobResponse>, Status> {
        let request = request.into_inner();
        unary(async {
            let (now, said) = self.api.explain_job(&request.job_id).await?;
            Ok(pb::ExplainJobResponse {
                state: state(now) as i32,
                waiting_on: Some(to::waiting_on(Waits::On(said.waiting_on))),
                sentence: said.sentence,
                next_attempt_time: said.next_attempt_at.and_then(time),
                ahead_count: super::convert::count(said.ahead),
            })
        })
        .await
    }

    type WatchJobsStream = Told<pb::WatchJobsResponse>;

    async fn watch_jobs(
        &self,
        request: Request<pb::WatchJobsRequest>,
    ) -> Result<Response<Self::WatchJobsStream>, Status> {
        let pb::WatchJobsRequest { filter, resume_token, snapshot } = request.into_inner();
        let watch = self.api.watch_jobs(WatchJobs { filter, resume_token, snapshot }).await?;
        Ok(Response::new(tell(watch, self.stop.clone(), |watch| {
            Box::pin(async { watch.next().await.map(|item| Some(to::item(item))) })
        })))
    }
}

//! RecordService on the wire: decode, convert, ask `api`, convert back.
//!
//! Must never know: policy. Next: `api/records`.

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::convert::records as to;
use super::convert::{duration_from, time_from};
use super::listener::actor;
use super::pb;
use super::server::unary;
use super::streams::{Told, tell};
use crate::api::records::PutSpec;
use crate::api::records::aggregate::AggregateSpec;
use crate::api::{Api, Result};

#[derive(Clone, Debug)]
pub(super) struct Records {
    pub api: Api,
    /// The server stops: streams end.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl pb::record_service_server::RecordService for Records {
    async fn put_record(
        &self,
        request: Request<pb::PutRecordRequest>,
    ) -> Result<Response<pb::PutRecordResponse>, Status> {
        let pb::PutRecordRequest { collection, id, data, expected_version, validate_only } = request.into_inner();
        let spec = PutSpec { id, data, expect: expected_version };
        unary(async {
            let Some(written) = self.api.put_record(&collection, spec, validate_only).await? else {
                return Ok(pb::PutRecordResponse::default());
            };
            let push_job_id = written.push.map(|id| id.to_string()).unwrap_or_default();
            let (record, changed) = (Some(to::record(written.record)), written.changed);
            Ok(pb::PutRecordResponse { record, changed, push_job_id })
        })
        .await
    }

    async fn put_records(
        &self,
        request: Request<pb::PutRecordsRequest>,
    ) -> Result<Response<pb::PutRecordsResponse>, Status> {
        let pb::PutRecordsRequest { collection, records } = request.into_inner();
        let specs = records.into_iter().map(to::put_spec).collect();
        unary(async { Ok(to::put_results(self.api.put_records(&collection, specs).await?)) }).await
    }

    async fn get_record(
        &self,
        request: Request<pb::GetRecordRequest>,
    ) -> Result<Response<pb::GetRecordResponse>, Status> {
        let pb::GetRecordRequest { collection, id } = request.into_inner();
        unary(async {
            let record = Some(to::record(self.api.get_record(&collection, &id).await?));
            Ok(pb::GetRecordResponse { record })
        })
        .await
    }

    async fn list_records(
        &self,
        request: Request<pb::ListRecordsRequest>,
    ) -> Result<Response<pb::ListRecordsResponse>, Status> {
        let pb::ListRecordsRequest { collection, filter, page_size, page_token } = request.into_inner();
        unary(async {
            let page = self.api.list_records(&collection, &filter, page_size, &page_token).await?;
            let records = page.records.into_iter().map(to::record).collect();
            Ok(pb::ListRecordsResponse { records, next_page_token: page.next_page_token })
        })
        .await
    }

    async fn delete_record(
        &self,
        request: Request<pb::DeleteRecordRequest>,
    ) -> Result<Response<pb::DeleteRecordResponse>, Status> {
        let pb::DeleteRecordRequest { collection, id, expected_version } = request.into_inner();
        unary(async {
            let job = self.api.delete_record(&collection, &id, expected_version).await?;
            Ok(pb::DeleteRecordResponse { push_job_id: job.map(|id| id.to_string()).unwrap_or_default() })
        })
        .await
    }

    async fn push_record(
        &self,
        request: Request<pb::PushRecordRequest>,
    ) -> Result<Response<pb::PushRecordResponse>, Status> {
        let pb::PushRecordRequest { collection, id } = request.into_inner();
        unary(async {
            let job = self.api.push_record(&collection, &id).await?;
            Ok(pb::PushRecordResponse { job_id: job.to_string() })
        })
        .await
    }

    async fn aggregate_records(
        &self,
        request: Request<pb::AggregateRecordsRequest>,
    ) -> Result<Response<pb::AggregateRecordsResponse>, Status> {
        let request = request.into_inner();
        unary(async {
            let time = |field: &str, at: Option<prost_types::Timestamp>| at.map(|at| time_from(field, at)).transpose();
            let spec = AggregateSpec {
                collection: request.collection,
                aggregate: request.aggregate,
                start: time("start_time", request.start_time)?,
                end: time("end_time", request.end_time)?,
                window: duration_from("window", request.window)?,
                top: request.top,
            };
            Ok(to::aggregated(self.api.aggregate_records(spec).await?))
        })
        .await
    }

    type WatchRecordsStream = Told<pb::WatchRecordsResponse>;

    async fn watch_records(
        &self,
        request: Request<pb::WatchRecordsRequest>,
    ) -> Result<Response<Self::WatchRecordsStream>, Status> {
        let pb::WatchRecordsRequest { collection, resume_token, snapshot } = request.into_inner();
        let watch = self.api.watch_records(&collection, &resume_token, snapshot).await?;
        Ok(Response::new(tell(watch, self.stop.clone(), |watch| {
            Box::pin(async { watch.next().await.map(|item| Some(to::item(item))) })
        })))
    }

    async fn pull_collection(
        &self,
        request: Request<pb::PullCollectionRequest>,
    ) -> Result<Response<pb::PullCollectionResponse>, Status> {
        let actor = actor(&request);
        let pb::PullCollectionRequest { collection, full } = request.into_inner();
        unary(async {
            let (pull, started) = self.api.pull_collection(&collection, full, &actor).await?;
            Ok(pb::PullCollectionResponse { pull: Some(to::pull(pull)), started })
        })
        .await
    }

    async fn get_collection(
        &self,
        request: Request<pb::GetCollectionRequest>,
    ) -> Result<Response<pb::GetCollectionResponse>, Status> {
        let name = request.into_inner().name;
        unary(async {
            let collection = Some(to::collection(self.api.get_collection(&name).await?));
            Ok(pb::GetCollectionResponse { collection })
        })
        .await
    }

    async fn list_collections(
        &self,
        _: Request<pb::ListCollectionsRequest>,
    ) -> Result<Response<pb::ListCollectionsResponse>, Status> {
        unary(async {
            let collections = self.api.list_collections().await?.into_iter().map(to::collection).collect();
            Ok(pb::ListCollectionsResponse { collections })
        })
        .await
    }
}

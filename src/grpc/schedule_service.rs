//! ScheduleService on the wire: decode, convert, ask `api`, convert back.
//!
//! Must never know: policy. Next: `api/schedules`.

use tonic::{Request, Response, Status};

use super::convert::schedules as to;
use super::listener::actor;
use super::pb;
use super::server::unary;
use crate::api::{Api, Result};

#[derive(Clone, Debug)]
pub(super) struct Schedules(pub Api);

#[tonic::async_trait]
impl pb::schedule_service_server::ScheduleService for Schedules {
    async fn create_schedule(
        &self,
        request: Request<pb::CreateScheduleRequest>,
    ) -> Result<Response<pb::CreateScheduleResponse>, Status> {
        let actor = actor(&request);
        let pb::CreateScheduleRequest { name, spec, validate_only } = request.into_inner();
        let spec = to::spec(spec)?;
        unary(async {
            let view = self.0.create_schedule(&name, spec, validate_only, &actor).await?;
            Ok(pb::CreateScheduleResponse { schedule: Some(to::schedule(view)) })
        })
        .await
    }

    async fn get_schedule(
        &self,
        request: Request<pb::GetScheduleRequest>,
    ) -> Result<Response<pb::GetScheduleResponse>, Status> {
        let name = request.into_inner().name;
        unary(async { Ok(pb::GetScheduleResponse { schedule: Some(to::schedule(self.0.get_schedule(&name).await?)) }) })
            .await
    }

    async fn list_schedules(
        &self,
        request: Request<pb::ListSchedulesRequest>,
    ) -> Result<Response<pb::ListSchedulesResponse>, Status> {
        let request = request.into_inner();
        unary(async {
            let page = self.0.list_schedules(request.page_size, &request.page_token).await?;
            let schedules = page.items.into_iter().map(to::schedule).collect();
            Ok(pb::ListSchedulesResponse { schedules, next_page_token: page.next_page_token })
        })
        .await
    }

    async fn update_schedule(
        &self,
        request: Request<pb::UpdateScheduleRequest>,
    ) -> Result<Response<pb::UpdateScheduleResponse>, Status> {
        let actor = actor(&request);
        let pb::UpdateScheduleRequest { name, spec, etag } = request.into_inner();
        let spec = to::spec(spec)?;
        unary(async {
            let view = self.0.update_schedule(&name, spec, &etag, &actor).await?;
            Ok(pb::UpdateScheduleResponse { schedule: Some(to::schedule(view)) })
        })
        .await
    }

    async fn delete_schedule(
        &self,
        request: Request<pb::DeleteScheduleRequest>,
    ) -> Result<Response<pb::DeleteScheduleResponse>, Status> {
        let actor = actor(&request);
        let name = request.into_inner().name;
        unary(async {
            self.0.delete_schedule(&name, &actor).await?;
            Ok(pb::DeleteScheduleResponse {})
        })
        .await
    }

    async fn pause_schedule(
        &self,
        request: Request<pb::PauseScheduleRequest>,
    ) -> Result<Response<pb::PauseScheduleResponse>, Status> {
        let actor = actor(&request);
        let name = request.into_inner().name;
        unary(async {
            let view = self.0.pause_schedule(&name, true, &actor).await?;
            Ok(pb::PauseScheduleResponse { schedule: Some(to::schedule(view)) })
        })
        .await
    }

    async fn resume_schedule(
        &self,
        request: Request<pb::ResumeScheduleRequest>,
    ) -> Result<Response<pb::ResumeScheduleResponse>, Status> {
        let actor = actor(&request);
        let name = request.into_inner().name;
        unary(async {
            let view = self.0.pause_schedule(&name, false, &actor).await?;
            Ok(pb::ResumeScheduleResponse { schedule: Some(to::schedule(view)) })
        })
        .await
    }

    async fn run_schedule(
        &self,
        request: Request<pb::RunScheduleRequest>,
    ) -> Result<Response<pb::RunScheduleResponse>, Status> {
        let actor = actor(&request);
        let name = request.into_inner().name;
        unary(async {
            let view = self.0.run_schedule(&name, &actor).await?;
            Ok(pb::RunScheduleResponse { schedule: Some(to::schedule(view)) })
        })
        .await
    }
}

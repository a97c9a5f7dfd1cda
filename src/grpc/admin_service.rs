//! AdminService on the wire: decode, convert, ask `api`, convert back.
//!
//! Must never know: policy. Next: `api/admin`.

use tonic::{Request, Response, Status};

use super::convert::{duration_from, events as to, small};
use super::pb;
use super::server::unary;
use crate::api::admin::AskEvents;
use crate::api::{Api, Result};

#[derive(Clone, Debug)]
pub(super) struct Admin(pub Api);

#[tonic::async_trait]
impl pb::admin_service_server::AdminService for Admin {
    async fn get_daemon(
        &self,
        _request: Request<pb::GetDaemonRequest>,
    ) -> Result<Response<pb::GetDaemonResponse>, Status> {
        unary(async { Ok(pb::GetDaemonResponse { daemon: Some(to::daemon(self.0.daemon().await?)) }) }).await
    }

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        let request = request.into_inner();
        let wait = duration_from("wait", request.wait)?.unwrap_or_default();
        let pb::ListEventsRequest { page_size, page_token, after_sequence, .. } = request;
        // Has its own bound: the wait.
        let events = self.0.list_events(AskEvents { page_size, page_token, after_sequence, wait }).await?;
        Ok(Response::new(to::events(events)))
    }

    async fn reload_config(
        &self,
        _request: Request<pb::ReloadConfigRequest>,
    ) -> Result<Response<pb::ReloadConfigResponse>, Status> {
        unary(async { Ok(pb::ReloadConfigResponse { changes: self.0.reload().await? }) }).await
    }

    async fn drain(&self, _request: Request<pb::DrainRequest>) -> Result<Response<pb::DrainResponse>, Status> {
        Ok(Response::new(pb::DrainResponse { in_flight: small(self.0.drain()) }))
    }
}

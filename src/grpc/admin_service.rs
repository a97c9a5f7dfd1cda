//! AdminService on the wire: decode, convert, ask `api`, convert back.
//!
//! Must never know: policy. Next: `api/admin`.

use tonic::{Request, Response, Status};

use super::convert::{call_log, duration_from, events as to, is_full, small};
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

    async fn list_calls(
        &self,
        request: Request<pb::ListCallsRequest>,
    ) -> Result<Response<pb::ListCallsResponse>, Status> {
        let request = request.into_inner();
        let full = is_full("view", request.view, false)?;
        unary(async {
            let page = self.0.list_calls(&request.filter, request.page_size, &request.page_token, full).await?;
            let calls = page.items.into_iter().map(|call| call_log::call(call, full)).collect();
            Ok(pb::ListCallsResponse { calls, next_page_token: page.next_page_token })
        })
        .await
    }

    async fn get_call(&self, request: Request<pb::GetCallRequest>) -> Result<Response<pb::GetCallResponse>, Status> {
        let id = request.into_inner().call_id;
        unary(async { Ok(pb::GetCallResponse { call: Some(call_log::call(self.0.get_call(id).await?, true)) }) }).await
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

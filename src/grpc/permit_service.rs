//! PermitService on the wire: decode, convert, ask `api`, convert back.
//!
//! Must never know: policy. Next: `api/permits`.

use tonic::{Request, Response, Status};

use super::convert::permits as to;
use super::pb;
use super::server::unary;
use crate::api::Api;

#[derive(Clone, Debug)]
pub(super) struct Permits(pub Api);

#[tonic::async_trait]
impl pb::permit_service_server::PermitService for Permits {
    async fn acquire_permits(
        &self,
        request: Request<pb::AcquirePermitsRequest>,
    ) -> Result<Response<pb::AcquirePermitsResponse>, Status> {
        let spec = to::permit_spec(request.into_inner())?;
        unary(async { Ok(to::permits(self.0.acquire_permits(spec).await?)) }).await
    }

    async fn settle_permits(
        &self,
        request: Request<pb::SettlePermitsRequest>,
    ) -> Result<Response<pb::SettlePermitsResponse>, Status> {
        let spec = to::seen_spec(request.into_inner());
        unary(async { Ok(pb::SettlePermitsResponse { already_settled: !self.0.settle_permits(spec).await? }) }).await
    }
}

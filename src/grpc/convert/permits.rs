//! Permits as proto.
//!
//! Must never know: policy. Next: `api/permits`.

use super::{class_from, duration_from, lane_from, small, time};
use crate::api::error::Result;
use crate::api::permits::{PermitSpec, Permits, SeenSpec};
use crate::grpc::pb;

pub fn permit_spec(request: pb::AcquirePermitsRequest) -> Result<PermitSpec> {
    Ok(PermitSpec {
        provider: request.provider,
        operation: request.operation,
        lane: lane_from("lane", request.lane)?,
        method: request.method,
        account: request.account,
        key: request.key,
        min: request.min_count,
        max: request.max_count,
        class: class_from("priority_class", request.priority_class)?.unwrap_or_default(),
        wait: duration_from("wait", request.wait)?,
        lease: duration_from("lease", request.lease)?,
    })
}

pub fn permits(permits: Permits) -> pb::AcquirePermitsResponse {
    match permits {
        Permits::Granted { token, count, expires_at } => pb::AcquirePermitsResponse {
            token: token.to_string(),
            granted_count: small(count),
            lease_expire_time: time(expires_at),
            ..Default::default()
        },
        Permits::Later { earliest, why } => {
            pb::AcquirePermitsResponse { earliest_time: earliest.and_then(time), waiting_on: why, ..Default::default() }
        }
    }
}

pub fn seen_spec(request: pb::SettlePermitsRequest) -> SeenSpec {
    let pb::SettlePermitsRequest { token, sent_count, status, headers } = request;
    let headers = headers.into_iter().map(|h| (h.name, h.value)).collect();
    SeenSpec { token, sent: sent_count, status, headers }
}

//! Calls of the journal as proto.
//!
//! Must never know: policy. Next: `api/call_log`.

use super::{count, duration, lane, small, time};
use crate::grpc::pb;
use crate::model::call::{Call, Ending};
use crate::model::call_log::Kept;

/// `full`: with bodies.
pub fn call(call: Call, full: bool) -> pb::Call {
    use pb::call::Ending as E;
    let ending = match call.ending {
        Ending::Open => E::Open,
        Ending::NotSent => E::NotSent,
        Ending::Answered => E::Answered,
        Ending::Lost => E::Lost,
        Ending::Crashed => E::Crashed,
    };
    let latency = call.seen.as_ref().map(|seen| duration(seen.latency));
    let (headers, bodies) = call.seen.map(|seen| (seen.headers, seen.bodies)).unwrap_or_default();
    let bodies = bodies.filter(|_| full).map(|b| (body(b.request), body(b.answer)));
    let (request_body, answer_body) = bodies.unzip();
    pb::Call {
        id: call.id.0,
        lane: lane(call.lane) as i32,
        job_count: small(call.jobs.len()),
        begin_time: time(call.begun_at),
        end_time: call.ended_at.and_then(time),
        ending: ending as i32,
        status: call.status.map_or(0, i32::from),
        error: call.error.map(|e| e.to_string()).unwrap_or_default(),
        provider: call.provider.to_string(),
        operation: call.operation.to_string(),
        account: call.account.to_string(),
        latency,
        limit_headers: headers.into_iter().map(|(name, value)| pb::Header { name, value }).collect(),
        request_body,
        answer_body,
        outside_permits: i32::try_from(call.outside).unwrap_or(i32::MAX),
    }
}

fn body(kept: Kept) -> pb::LoggedBody {
    pb::LoggedBody { text: kept.text, size_bytes: count(kept.bytes), truncated: kept.cut }
}

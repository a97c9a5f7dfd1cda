//! CallService on the wire: decode, convert, ask `api`, convert back.
//!
//! Must never know: policy. Next: `api/calls`.

use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::convert::calls as to;
use super::listener::actor;
use super::pb;
use super::server::unary;
use crate::api::{Api, Result};

/// What is left of a client's deadline for the way back: it should be told, not cut off.
const WAY_BACK: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub(super) struct Calls(pub Api);

#[tonic::async_trait]
impl pb::call_service_server::CallService for Calls {
    async fn call(&self, request: Request<pb::CallRequest>) -> Result<Response<pb::CallResponse>, Status> {
        let deadline = deadline(request.metadata());
        let mut spec = to::spec(request.into_inner())?;
        if let Some(left) = deadline {
            let most = spec.wait.unwrap_or(crate::api::calls::WAIT_DEFAULT);
            spec.wait = Some(most.min(left.saturating_sub(WAY_BACK)));
        }
        // Has its own bound: the wait, and the provider's timeouts.
        let told = self.0.call(spec).await?;
        Ok(Response::new(to::told(&told, self.0.clock().now())))
    }

    async fn invalidate_cache(
        &self,
        request: Request<pb::InvalidateCacheRequest>,
    ) -> Result<Response<pb::InvalidateCacheResponse>, Status> {
        let actor = actor(&request);
        let request = request.into_inner();
        unary(async {
            let count = self.0.invalidate(&request.namespace, to::keys(request.which), &actor).await?;
            Ok(pb::InvalidateCacheResponse { count: super::convert::small(count) })
        })
        .await
    }
}

/// How long the client waits: up to eight digits and a unit.
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let n: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3_600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_with_its_unit() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata)
        };
        assert_eq!(read("1500m"), Some(Duration::from_millis(1_500)));
        assert_eq!(read("5S"), Some(Duration::from_secs(5)));
        assert_eq!((read("S"), read("5"), read("123456789S"), read("-5S")), (None, None, None, None));
    }
}

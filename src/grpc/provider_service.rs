//! ProviderService on the wire: decode, convert, ask `api`, convert back.
//!
//! Must never know: policy. Next: `api/providers`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::convert::providers as to;
use super::convert::{duration_from, is_full};
use super::listener::actor;
use super::pb;
use super::server::unary;
use super::streams::{Told, tell};
use crate::api::providers::{Apply, watch_interval};
use crate::api::{Api, Error, Result};
use crate::clock::Timestamp;

#[derive(Clone, Debug)]
pub(super) struct Providers {
    pub api: Api,
    /// The server stops: streams end.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl pb::provider_service_server::ProviderService for Providers {
    async fn apply_provider(
        &self,
        request: Request<pb::ApplyProviderRequest>,
    ) -> Result<Response<pb::ApplyProviderResponse>, Status> {
        let actor = actor(&request);
        let pb::ApplyProviderRequest { source, validate_only, etag } = request.into_inner();
        unary(async {
            let view = self.api.apply_provider(Apply { source, validate_only, etag }, &actor).await?;
            Ok(pb::ApplyProviderResponse { provider: Some(to::provider(view, true)) })
        })
        .await
    }

    async fn get_provider(
        &self,
        request: Request<pb::GetProviderRequest>,
    ) -> Result<Response<pb::GetProviderResponse>, Status> {
        let request = request.into_inner();
        let full = is_full("view", request.view, true)?;
        unary(async {
            let view = self.api.get_provider(&request.name).await?;
            Ok(pb::GetProviderResponse { provider: Some(to::provider(view, full)) })
        })
        .await
    }

    async fn list_providers(
        &self,
        request: Request<pb::ListProvidersRequest>,
    ) -> Result<Response<pb::ListProvidersResponse>, Status> {
        let request = request.into_inner();
        let full = is_full("view", request.view, false)?;
        unary(async {
            let page = self.api.list_providers(request.page_size, &request.page_token).await?;
            let providers = page.items.into_iter().map(|view| to::provider(view, full)).collect();
            Ok(pb::ListProvidersResponse { providers, next_page_token: page.next_page_token })
        })
        .await
    }

    async fn delete_provider(
        &self,
        request: Request<pb::DeleteProviderRequest>,
    ) -> Result<Response<pb::DeleteProviderResponse>, Status> {
        let actor = actor(&request);
        let request = request.into_inner();
        unary(async {
            self.api.delete_provider(&request.name, request.force, &actor).await?;
            Ok(pb::DeleteProviderResponse {})
        })
        .await
    }

    async fn pause_provider(
        &self,
        request: Request<pb::PauseProviderRequest>,
    ) -> Result<Response<pb::PauseProviderResponse>, Status> {
        let actor = actor(&request);
        let name = request.into_inner().name;
        unary(async {
            let view = self.api.pause_provider(&name, true, &actor).await?;
            Ok(pb::PauseProviderResponse { provider: Some(to::provider(view, false)) })
        })
        .await
    }

    async fn resume_provider(
        &self,
        request: Request<pb::ResumeProviderRequest>,
    ) -> Result<Response<pb::ResumeProviderResponse>, Status> {
        let actor = actor(&request);
        let name = request.into_inner().name;
        unary(async {
            let view = self.api.pause_provider(&name, false, &actor).await?;
            Ok(pb::ResumeProviderResponse { provider: Some(to::provider(view, false)) })
        })
        .await
    }

    async fn get_provider_status(
        &self,
        request: Request<pb::GetProviderStatusRequest>,
    ) -> Result<Response<pb::GetProviderStatusResponse>, Status> {
        let name = request.into_inner().name;
        unary(async {
            let status = to::status(self.api.provider_status(&name).await?, self.api.clock());
            Ok(pb::GetProviderStatusResponse { status: Some(status) })
        })
        .await
    }

    type WatchProviderStatusStream = Told<pb::WatchProviderStatusResponse>;

    async fn watch_provider_status(
        &self,
        request: Request<pb::WatchProviderStatusRequest>,
    ) -> Result<Response<Self::WatchProviderStatusStream>, Status> {
        let request = request.into_inner();
        let interval = watch_interval(duration_from("interval", request.interval)?)?;
        // Asked once before the stream begins, so that an unknown name is an error of the call.
        self.api.provider_status(&request.name).await?;
        let watch =
            StatusWatch { api: self.api.clone(), name: request.name, interval, next_at: self.api.clock().steady() };
        Ok(Response::new(tell(watch, self.stop.clone(), |watch| Box::pin(async { watch.next().await.map(Some) }))))
    }

    async fn reset_breaker(
        &self,
        request: Request<pb::ResetBreakerRequest>,
    ) -> Result<Response<pb::ResetBreakerResponse>, Status> {
        let actor = actor(&request);
        let name = request.into_inner().name;
        unary(async {
            let status = self.api.reset_breaker(&name, &actor).await?;
            Ok(pb::ResetBreakerResponse { breaker: Some(to::breaker(status.breaker)) })
        })
        .await
    }

    async fn test_provider(
        &self,
        request: Request<pb::TestProviderRequest>,
    ) -> Result<Response<pb::TestProviderResponse>, Status> {
        let pb::TestProviderRequest { name, path } = request.into_inner();
        unary(async { Ok(to::test_report(self.api.test_provider(&name, &path).await?)) }).await
    }
}

/// Status again and again.
struct StatusWatch {
    api: Api,
    name: String,
    interval: Duration,
    next_at: Timestamp,
}

impl StatusWatch {
    async fn next(&mut self) -> Result<pb::WatchProviderStatusResponse> {
        tokio::select! {
            biased;
            () = self.api.draining() => return Err(Error::draining()),
            () = self.api.clock().sleep_until(self.next_at) => {}
        }
        // Counted from now, so that a slow reader does not get a burst afterwards.
        self.next_at = self.api.clock().steady() + self.interval;
        let status = to::status(self.api.provider_status(&self.name).await?, self.api.clock());
        Ok(pb::WatchProviderStatusResponse { status: Some(status) })
    }
}

//! The gRPC server: services, health, reflection, and the bounds that tonic does not set by itself.
//!
//! Runs as one future: whoever owns it supervises it. When told to stop it ends streams with a word, lets calls
//! finish, and cuts what is left after the grace. Must never know:
//! what the services offer. Next: `grpc/job_service`.

use std::time::Duration;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Response, Status};
use tonic_health::server::HealthReporter;

use super::admin_service::Admin;
use super::call_service::Calls;
use super::job_service::Jobs;
use super::meter::Meter;
use super::pb::admin_service_server::{AdminServiceServer, SERVICE_NAME as ADMIN};
use super::pb::call_service_server::{CallServiceServer, SERVICE_NAME as CALLS};
use super::pb::job_service_server::{JobServiceServer, SERVICE_NAME as JOBS};
use super::pb::permit_service_server::{PermitServiceServer, SERVICE_NAME as PERMITS};
use super::pb::provider_service_server::{ProviderServiceServer, SERVICE_NAME as PROVIDERS};
use super::pb::record_service_server::{RecordServiceServer, SERVICE_NAME as RECORDS};
use super::pb::run_service_server::{RunServiceServer, SERVICE_NAME as RUNS};
use super::pb::schedule_service_server::{SERVICE_NAME as SCHEDULES, ScheduleServiceServer};
use super::pb::worker_service_server::{SERVICE_NAME as WORKERS, WorkerServiceServer};
use super::permit_service::Permits;
use super::provider_service::Providers;
use super::record_service::Records;
use super::run_service::Runs;
use super::schedule_service::Schedules;
use super::worker_service::Workers;
use super::{listener, pb};
use crate::api::{Api, Code, Error, Result, enqueue};
use crate::telemetry::trace;

/// Longest unary call but for those that wait on purpose.
pub const UNARY_MAX: Duration = Duration::from_secs(30);

/// Bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections. More wait in the listener's backlog.
    pub connections_max: usize,
    /// Streams of one connection at a time; also the calls of one connection that are worked on.
    pub streams_max: u32,
    /// Streams of one connection that it broke by errors of its own, before it is closed.
    pub error_resets_max: usize,
    /// Largest request message, bytes, also after decompression.
    pub decode_max: usize,
    /// Largest answer message, bytes.
    pub encode_max: usize,
    /// Largest head of a request, bytes.
    pub headers_max: u32,
    /// A quiet connection is asked for life after this time ...
    pub keepalive: Duration,
    /// ... and closed when it gives none within this.
    pub keepalive_timeout: Duration,
    /// Time for calls to finish after the stop, before connections are cut.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 1_024,
            streams_max: 256,
            error_resets_max: 1_024,
            decode_max: 4 << 20,
            encode_max: 16 << 20,
            headers_max: 16 << 10,
            keepalive: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(5),
        }
    }
}

/// Why the server ended or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the reflection service cannot be built: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the gRPC server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves on both listeners until `stop`, then for the grace at most.
pub async fn serve(
    api: Api,
    tcp: Option<TcpListener>,
    unix: Option<UnixListener>,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let (health, routes) = routes(&api, &limits, &stop).await?;
    let cut = CancellationToken::new();
    let connections = listener::connections(tcp, unix, limits.connections_max, cut.clone());
    let serving = Server::builder()
        .layer(Meter::new(api.clock().clone(), api.metrics().clone()))
        .max_concurrent_streams(limits.streams_max)
        .concurrency_limit_per_connection(limits.streams_max as usize)
        // A connection above its limit is told so at once; its calls do not queue in our memory.
        .load_shed(true)
        .http2_max_local_error_reset_streams(Some(limits.error_resets_max))
        .http2_max_header_list_size(limits.headers_max)
        .http2_keepalive_interval(Some(limits.keepalive))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        // Room for messages of the largest size without a round trip each 64 KiB.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned());
    let deadline = async {
        stop.cancelled().await;
        // Clients that watch our health go elsewhere while calls finish.
        for service in ["", JOBS, RUNS, PROVIDERS, CALLS, PERMITS, RECORDS, SCHEDULES, WORKERS, ADMIN] {
            health.set_service_status(service, tonic_health::ServingStatus::NotServing).await;
        }
        api.clock().sleep_until(api.clock().steady() + limits.grace).await;
        tracing::warn!("gRPC connections were still open after the grace; cutting them");
        cut.cancel();
    };
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => Ok(ended?),
        () = deadline => Ok(serving.await?),
    }
}

pub(super) async fn routes(
    api: &Api,
    limits: &Limits,
    stop: &CancellationToken,
) -> Result<(HealthReporter, Routes), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<JobServiceServer<Jobs>>().await;
    health.set_serving::<RunServiceServer<Runs>>().await;
    health.set_serving::<ProviderServiceServer<Providers>>().await;
    health.set_serving::<PermitServiceServer<Permits>>().await;
    health.set_serving::<RecordServiceServer<Records>>().await;
    health.set_serving::<CallServiceServer<Calls>>().await;
    health.set_serving::<ScheduleServiceServer<Schedules>>().await;
    health.set_serving::<WorkerServiceServer<Workers>>().await;
    health.set_serving::<AdminServiceServer<Admin>>().await;
    // Compressed requests are taken; answers are compressed for those who ask.
    macro_rules! bounded {
        ($service:expr) => {
            $service
                .max_decoding_message_size(limits.decode_max)
                .max_encoding_message_size(limits.encode_max)
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip)
        };
    }
    let (api, stop) = (api.clone(), stop.clone());
    let routes = Routes::default()
        .add_service(bounded!(JobServiceServer::new(Jobs { api: api.clone(), stop: stop.clone() })))
        .add_service(bounded!(RunServiceServer::new(Runs { api: api.clone(), stop: stop.clone() })))
        .add_service(bounded!(ProviderServiceServer::new(Providers { api: api.clone(), stop: stop.clone() })))
        .add_service(bounded!(PermitServiceServer::new(Permits(api.clone()))))
        .add_service(bounded!(RecordServiceServer::new(Records { api: api.clone(), stop: stop.clone() })))
        .add_service(bounded!(CallServiceServer::new(Calls(api.clone()))))
        .add_service(bounded!(ScheduleServiceServer::new(Schedules(api.clone()))))
        .add_service(bounded!(WorkerServiceServer::new(Workers { api: api.clone(), stop: stop.clone() })))
        .add_service(bounded!(AdminServiceServer::new(Admin(api.clone()))))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok((health, routes))
}

/// Everything that a client may meet: our services, health, and the details of errors.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_file_descriptor_set(error_details())
}

/// The google.rpc messages that our errors carry, under the names by which the world imports them: tonic-types has
/// them without their folder.
fn error_details() -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .expect("tonic-types brings a sound descriptor set: a test reads it");
    for file in set.file.iter_mut().filter(|file| file.package() == "google.rpc") {
        file.name = file.name.take().map(|name| format!("google/rpc/{}", name.trim_start_matches("google/rpc/")));
    }
    set
}

/// Runs a call within [`UNARY_MAX`] and tells its error as a status.
pub(super) async fn unary<T>(work: impl Future<Output = Result<T>>) -> Result<Response<T>, Status> {
    match tokio::time::timeout(UNARY_MAX, work).await {
        Ok(done) => Ok(Response::new(done?)),
        Err(_) => {
            let said = format!("not done within {} seconds; it may still happen", UNARY_MAX.as_secs());
            Err(Error::new(Code::DeadlineExceeded, "TOO_SLOW", said).into())
        }
    }
}

/// The span of a request that hands jobs in, and the trace context that its jobs go on with: the span's where traces are
/// made, else the caller's own. `own`: what a single job brought, which goes before the request's.
pub(super) fn handing_in(
    what: &'static str,
    metadata: &MetadataMap,
    own: Option<&str>,
) -> (tracing::Span, Option<String>) {
    let given = own.filter(|text| enqueue::is_traceparent(text)).or_else(|| traceparent(metadata));
    if !trace::is_on() {
        return (tracing::Span::none(), given.map(str::to_owned));
    }
    let span = trace::producer_span(what);
    trace::adopt(&span, given);
    let goes_on = trace::traceparent(&span).or_else(|| given.map(str::to_owned));
    (span, goes_on)
}

/// The caller's trace context. A malformed one is ignored, as the standard demands.
fn traceparent(metadata: &MetadataMap) -> Option<&str> {
    metadata.get("traceparent")?.to_str().ok().filter(|text| enqueue::is_traceparent(text))
}

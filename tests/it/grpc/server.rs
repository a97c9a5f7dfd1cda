//! The server's own promises: health, reflection, sizes, unix sockets, bounds, shutdown.

use std::sync::Arc;
use std::time::Duration;

use tidegate::grpc::{Limits, pb};
use tidegate::store::memory::MemoryStore;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use super::house::{Says, house, house_with, ping};

const SERVICES: [&str; 7] = [
    "tidegate.v1.AdminService",
    "tidegate.v1.CallService",
    "tidegate.v1.JobService",
    "tidegate.v1.ProviderService",
    "tidegate.v1.RunService",
    "tidegate.v1.ScheduleService",
    "tidegate.v1.WorkerService",
];

#[tokio::test]
async fn health_is_told_per_service_and_for_all() {
    let house = house().await;
    let mut health = HealthClient::new(house.channel.clone());
    for service in SERVICES.iter().copied().chain([""]) {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    let unknown = HealthCheckRequest { service: "tidegate.v1.Nothing".into() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn reflection_v1_lists_the_services_and_knows_the_details_of_errors() {
    use v1::server_reflection_request::MessageRequest as Ask;
    use v1::server_reflection_response::MessageResponse as Told;
    let house = house().await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(house.channel.clone());
    let ask = |message| v1::ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let asks = [
        ask(Ask::ListServices(String::new())),
        ask(Ask::FileContainingSymbol("google.rpc.ErrorInfo".into())),
        ask(Ask::FileByFilename("google/rpc/error_details.proto".into())),
        ask(Ask::FileContainingSymbol("tidegate.v1.JobService".into())),
    ];
    let mut answers = client.server_reflection_info(tokio_stream::iter(asks)).await.unwrap().into_inner();
    let Some(Told::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response else {
        panic!("not a list")
    };
    let names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
    assert!(SERVICES.iter().all(|s| names.iter().any(|n| n == s)), "{names:?}");
    for _ in 0..3 {
        let told = answers.message().await.unwrap().unwrap().message_response;
        assert!(matches!(told, Some(Told::FileDescriptorResponse(_))), "{told:?}");
    }
}

#[tokio::test]
async fn reflection_v1alpha_answers_too() {
    use v1alpha::server_reflection_request::MessageRequest as Ask;
    use v1alpha::server_reflection_response::MessageResponse as Told;
    let house = house().await;
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(house.channel.clone());
    let message = Some(Ask::FileContainingSymbol("tidegate.v1.RunService".into()));
    let ask = v1alpha::ServerReflectionRequest { host: String::new(), message_request: message };
    let mut answers = client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let told = answers.message().await.unwrap().unwrap().message_response;
    assert!(matches!(told, Some(Told::FileDescriptorResponse(_))), "{told:?}");
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_also_when_it_is_small_on_the_wire() {
    let limits = Limits { decode_max: 100_000, ..Limits::default() };
    let house = house_with(limits, Arc::new(MemoryStore::new())).await;
    let bomb = || pb::EnqueueJobsRequest {
        jobs: vec![pb::JobSpec { payload: "0".repeat(9_000), ..ping() }; 20],
        ..Default::default()
    };
    let plain = house.jobs().enqueue_jobs(bomb()).await.unwrap_err();
    assert!(matches!(plain.code(), Code::OutOfRange | Code::ResourceExhausted), "{plain:?}");
    let mut packed = house.jobs().send_compressed(CompressionEncoding::Gzip);
    let packed = packed.enqueue_jobs(bomb()).await.unwrap_err();
    assert!(matches!(packed.code(), Code::OutOfRange | Code::ResourceExhausted), "{packed:?}");
    house.enqueue(ping()).await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_their_turn() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let house = house_with(limits, Arc::new(MemoryStore::new())).await;
    let ask = |channel| async move {
        let mut client = pb::admin_service_client::AdminServiceClient::new(channel);
        client.get_daemon(pb::GetDaemonRequest {}).await
    };
    let second = tonic::transport::Channel::from_shared(format!("http://{}", house.at)).unwrap().connect_lazy();
    let mut waits = tokio::spawn(ask(second));
    // The first connection is served as before while the second one waits.
    for _ in 0..20 {
        ask(house.channel.clone()).await.unwrap();
    }
    assert!(futures_util::future::FutureExt::now_or_never(&mut waits).is_none());
    drop(house.channel);
    waits.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_unix_socket_serves_the_same_and_knows_its_user() {
    let house = house().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.sock");
    let unix = tokio::net::UnixListener::bind(&path).unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let api = tidegate::api::Api::new(house.engine.clone(), tidegate::api::Options::default());
    let server = tokio::spawn(tidegate::grpc::serve(api, None, Some(unix), Limits::default(), stop.clone()));
    let channel = tonic::transport::Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut providers = pb::provider_service_client::ProviderServiceClient::new(channel.clone());
    providers.pause_provider(pb::PauseProviderRequest { name: "shop".into() }).await.unwrap();
    let request = pb::ListEventsRequest { after_sequence: -1, ..Default::default() };
    let event = house.admin().list_events(request).await.unwrap().into_inner().events.remove(0);
    let Some(pb::event::What::Provider(change)) = event.what else { panic!("{event:?}") };
    assert!(change.actor.starts_with("unix uid="), "{change:?}");
    drop((providers, channel));
    stop.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn after_the_stop_a_call_may_finish_and_the_server_ends() {
    let house = house().await;
    house.says.send_replace(Says::Nothing);
    let id = house.enqueue(ping()).await.unwrap();
    let mut client = house.jobs();
    let request = pb::WaitJobsRequest { job_ids: vec![id], ..Default::default() };
    let mut waiting = tokio::spawn(async move { client.wait_jobs(request).await });
    // An answer on the same connection shows that the wait before it has arrived.
    house.jobs().list_jobs(pb::ListJobsRequest::default()).await.unwrap();
    assert!(futures_util::future::FutureExt::now_or_never(&mut waiting).is_none());
    house.stop.cancel();
    house.says.send_replace(Says::Status(200));
    let waited = waiting.await.unwrap().unwrap().into_inner();
    assert!(waited.done);
    drop(house.channel);
    house.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_does_not_finish_within_the_grace_is_cut() {
    let limits = Limits { grace: Duration::from_millis(1), ..Limits::default() };
    let house = house_with(limits, Arc::new(MemoryStore::new())).await;
    house.says.send_replace(Says::Nothing);
    let id = house.enqueue(ping()).await.unwrap();
    let mut client = house.jobs();
    let request = pb::WaitJobsRequest { job_ids: vec![id], ..Default::default() };
    let waiting = tokio::spawn(async move { client.wait_jobs(request).await });
    house.jobs().list_jobs(pb::ListJobsRequest::default()).await.unwrap();
    house.stop.cancel();
    house.server.await.unwrap().unwrap();
    assert!(waiting.await.unwrap().is_err());
}

//! Calls whose answer somebody waits for: limited, cached, journaled; on real daemons with a real provider.

use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::grpc::pb;
use tidegate::grpc::pb::call_service_client::CallServiceClient;
use tidegate::grpc::pb::invalidate_cache_request::Which;
use tidegate::simulator::{Documents, Faults, Latency, Simulator, SimulatorConfig, SimulatorHandle};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::process::{Daemon, Place, until};
use crate::support::redis::RedisServer;
use crate::support::servers::Database;

async fn provider(documents: Documents) -> SimulatorHandle {
    let config = SimulatorConfig { documents: Some(documents), latency: Latency::none(), ..Default::default() };
    Simulator::start(config).await.unwrap()
}

/// Validators, and nothing said of how long an answer is good.
fn etags() -> Documents {
    Documents { etag: true, last_modified: true, ..Documents::default() }
}

/// `provider_lines`: beside the base URL; `operation_lines`: beside `GET /users/{key}`.
fn declaration(provider: &SimulatorHandle, provider_lines: &str, operation_lines: &str) -> String {
    format!(
        "[providers.github]\nbase_url = \"{}\"\nallow_private = true\n{provider_lines}\n\
         [providers.github.operations.user]\nrequest = \"GET /users/{{key}}\"\n{operation_lines}\n",
        provider.base_url()
    )
}

struct Stand {
    provider: SimulatorHandle,
    daemon: Daemon,
    place: Place,
    _folder: tempfile::TempDir,
}

async fn stand(documents: Documents, provider_lines: &str, operation_lines: &str) -> Stand {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(documents).await;
    let declaration = declaration(&provider, provider_lines, operation_lines);
    let place = Place::new(folder.path(), folder.path(), &declaration);
    let daemon = place.start().await;
    Stand { provider, daemon, place, _folder: folder }
}

fn client(daemon: &Daemon) -> CallServiceClient<tonic::transport::Channel> {
    CallServiceClient::new(daemon.channel())
}

fn user(key: &str) -> pb::CallRequest {
    pb::CallRequest {
        provider: "github".into(),
        operation: "user".into(),
        key: key.into(),
        max_wait: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
        ..Default::default()
    }
}

async fn call(daemon: &Daemon, request: pb::CallRequest) -> Result<pb::CallResponse, Status> {
    Ok(client(daemon).call(request).await?.into_inner())
}

fn version(answer: &pb::CallResponse) -> u64 {
    serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap()["version"].as_u64().unwrap()
}

#[tokio::test]
async fn a_second_identical_call_is_served_from_the_cache_without_a_request() {
    let fresh = Documents { cache_control: "private, max-age=60".into(), ..etags() };
    let stand = stand(fresh, "cache = \"etag\"", "").await;
    let first = call(&stand.daemon, user("ada")).await.unwrap();
    assert_eq!((first.status, first.cache(), version(&first)), (200, pb::CacheStatus::Miss, 0));
    assert!(
        first.headers.iter().any(|h| h.name == "etag") && !first.headers.iter().any(|h| h.name == "content-length")
    );
    stand.provider.change_documents();
    let second = call(&stand.daemon, user("ada")).await.unwrap();
    assert_eq!((second.cache(), second.body), (pb::CacheStatus::Hit, first.body));
    assert_eq!(stand.provider.report().arrivals, 1);
    // Another one, another account, and one that wants it fresh are other questions.
    assert_eq!(call(&stand.daemon, user("bob")).await.unwrap().cache(), pb::CacheStatus::Miss);
    let other = pb::CallRequest { account: "acct-7".into(), ..user("ada") };
    assert_eq!(call(&stand.daemon, other).await.unwrap().cache(), pb::CacheStatus::Miss);
    let again = call(&stand.daemon, pb::CallRequest { fresh: true, ..user("ada") }).await.unwrap();
    assert_eq!((again.cache(), version(&again)), (pb::CacheStatus::Miss, 1));
    assert_eq!(version(&call(&stand.daemon, user("ada")).await.unwrap()), 1);
    assert_eq!(stand.provider.report().arrivals, 4);
}

#[tokio::test]
async fn a_304_refreshes_without_counting_where_the_profile_says_so() {
    let limits = "cache = \"etag\"\nlimits = [{ name = \"core\", max = 2, per = \"1h\", not_counted = [304] }]";
    let stand = stand(etags(), limits, "").await;
    assert_eq!(call(&stand.daemon, user("ada")).await.unwrap().cache(), pb::CacheStatus::Miss);
    for _ in 0..5 {
        let again = call(&stand.daemon, user("ada")).await.unwrap();
        assert_eq!((again.status, again.cache(), version(&again)), (200, pb::CacheStatus::Revalidated, 0));
    }
    stand.provider.change_documents();
    let changed = call(&stand.daemon, user("ada")).await.unwrap();
    assert_eq!((changed.cache(), version(&changed)), (pb::CacheStatus::Miss, 1));
    assert_eq!(stand.provider.report().arrivals, 7);
    // Two counted; a third has no room, also after a restart that counts from the journal.
    let status = call(&stand.daemon, user("bob")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    stand.daemon.kill(&Clock::system()).await;
    let daemon = stand.place.start().await;
    assert_eq!(call(&daemon, user("bob")).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(stand.provider.report().arrivals, 7);
}

#[tokio::test]
async fn permits_of_a_304_are_there_again_after_a_restart() {
    let limits = "cache = \"etag\"\nlimits = [{ name = \"core\", max = 2, per = \"1h\", not_counted = [304] }]";
    let stand = stand(etags(), limits, "").await;
    for _ in 0..4 {
        call(&stand.daemon, user("ada")).await.unwrap();
    }
    // In peace: an answer is told before its end is in the journal, and a kill in between counts too much.
    assert!(stand.daemon.stop().await);
    let daemon = stand.place.start().await;
    assert_eq!(call(&daemon, user("bob")).await.unwrap().cache(), pb::CacheStatus::Miss);
    assert_eq!(call(&daemon, user("eve")).await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn many_callers_of_the_same_cost_one_request() {
    let stand = stand(etags(), "", "cache = { ttl = \"1h\" }").await;
    let calls = (0..200).map(|_| call(&stand.daemon, user("ada")));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|a| a.status == 200)));
    assert_eq!(stand.provider.report().arrivals, 1);
}

#[tokio::test]
async fn what_was_invalidated_is_fetched_again() {
    let stand = stand(etags(), "", "cache = { ttl = \"1h\" }").await;
    let ask = async || {
        let keys = ["ada", "adam", "bob"].map(|key| call(&stand.daemon, user(key)));
        let answers = futures_util::future::join_all(keys).await;
        answers.into_iter().map(|a| a.unwrap().cache() == pb::CacheStatus::Hit).collect::<Vec<_>>()
    };
    let invalidate = async |which| {
        let request = pb::InvalidateCacheRequest { namespace: "github".into(), which: Some(which) };
        client(&stand.daemon).invalidate_cache(request).await.unwrap().into_inner().count
    };
    ask().await;
    assert_eq!(ask().await, [true; 3]);
    assert_eq!(invalidate(Which::Key("/users/ada".into())).await, 1);
    assert_eq!(ask().await, [false, true, true]);
    assert_eq!(invalidate(Which::Prefix("/users/ada".into())).await, 2);
    assert_eq!(ask().await, [false, false, true]);
    assert_eq!(invalidate(Which::Prefix(String::new())).await, 3);
    assert_eq!(ask().await, [false; 3]);
    let nothing = pb::InvalidateCacheRequest { namespace: "github".into(), which: None };
    assert_eq!(client(&stand.daemon).invalidate_cache(nothing).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn answers_of_one_namespace_are_none_of_another() {
    let stand = stand(etags(), "", "cache = { ttl = \"1h\" }").await;
    let ask = async |namespace: &str| {
        let request = pb::CallRequest { namespace: namespace.into(), ..user("ada") };
        call(&stand.daemon, request).await.unwrap().cache()
    };
    let invalidate = async |namespace: &str, which| {
        let request = pb::InvalidateCacheRequest { namespace: namespace.into(), which: Some(which) };
        client(&stand.daemon).invalidate_cache(request).await.unwrap().into_inner().count
    };
    let (hit, miss) = (pb::CacheStatus::Hit, pb::CacheStatus::Miss);
    assert_eq!([ask("").await, ask("reports").await], [miss, miss]);
    assert_eq!([ask("").await, ask("reports").await], [hit, hit]);
    assert_eq!(ask("github").await, hit, "the provider's name is what is meant by none");
    assert_eq!(invalidate("reports", Which::Key("/users/ada".into())).await, 1);
    assert_eq!([ask("").await, ask("reports").await], [hit, miss]);
    assert_eq!(invalidate("github", Which::Prefix(String::new())).await, 1);
    assert_eq!([ask("reports").await, ask("").await], [hit, miss]);
    assert_eq!(invalidate("nobody", Which::Prefix(String::new())).await, 0);
    assert_eq!(stand.provider.report().arrivals, 4);
}

#[tokio::test]
async fn a_call_that_cannot_be_paid_before_its_deadline_says_when() {
    let stand = stand(etags(), "limits = [\"1/h\"]", "").await;
    assert_eq!(call(&stand.daemon, user("ada")).await.unwrap().cache(), pb::CacheStatus::Bypass);
    let status = call(&stand.daemon, user("ada")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "NO_ROOM");
    assert!(!details.quota_failure().unwrap().violations.is_empty());
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    assert!((Duration::from_secs(3_000)..=Duration::from_secs(3_700)).contains(&wait), "{wait:?}");
    assert_eq!(stand.provider.report().arrivals, 1);
}

#[tokio::test]
async fn a_call_waits_for_its_permit_within_the_deadline_and_for_a_provider_that_says_not_now() {
    let own = stand(etags(), "limits = [\"1/s\"]", "").await;
    call(&own.daemon, user("ada")).await.unwrap();
    let waited = call(&own.daemon, user("ada")).await.unwrap().waited.unwrap();
    assert!(waited.seconds >= 1 || waited.nanos > 500_000_000, "{waited:?}");
    // The provider counts one a second, and we do not know.
    let strict = SimulatorConfig { documents: Some(etags()), latency: Latency::none(), ..Default::default() };
    let strict = Simulator::start(strict.limit("all=rolling:1/1s").unwrap()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let daemon = Place::new(folder.path(), folder.path(), &declaration(&strict, "", "")).start().await;
    for key in ["ada", "bob"] {
        assert_eq!(call(&daemon, user(key)).await.unwrap().status, 200);
    }
    let report = strict.report();
    assert_eq!((report.arrivals, report.refused), (3, 1));
}

#[tokio::test]
async fn a_call_that_was_cut_off_by_a_kill_counts_against_its_limit() {
    let stand = stand(etags(), "limits = [\"1/h\"]", "").await;
    stand.provider.set_faults(Faults { silence_share: 1.0, ..Default::default() });
    let mut waiting = client(&stand.daemon);
    let cut = tokio::spawn(async move { waiting.call(user("ada")).await });
    until(Duration::from_secs(20), || async { (stand.provider.report().arrivals == 1).then_some(()) }).await.unwrap();
    stand.daemon.kill(&Clock::system()).await;
    assert!(cut.await.unwrap().is_err());
    stand.provider.set_faults(Faults::default());
    let daemon = stand.place.start().await;
    assert_eq!(call(&daemon, user("bob")).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(stand.provider.report().arrivals, 1);
}

#[tokio::test]
async fn a_caller_of_a_paused_provider_or_of_what_is_not_there_is_told_at_once() {
    let stand = stand(etags(), "", "").await;
    let code = async |request| call(&stand.daemon, request).await.unwrap_err().code();
    assert_eq!(code(pb::CallRequest { provider: "gitlab".into(), ..user("ada") }).await, Code::NotFound);
    assert_eq!(code(pb::CallRequest { operation: "users".into(), ..user("ada") }).await, Code::NotFound);
    assert_eq!(code(pb::CallRequest { namespace: "No Word".into(), ..user("ada") }).await, Code::InvalidArgument);
    assert_eq!(code(pb::CallRequest { payload: "{".into(), ..user("ada") }).await, Code::InvalidArgument);
    let pause = pb::PauseProviderRequest { name: "github".into() };
    let mut providers = pb::provider_service_client::ProviderServiceClient::new(stand.daemon.channel());
    providers.pause_provider(pause).await.unwrap();
    assert_eq!(code(user("ada")).await, Code::FailedPrecondition);
    assert_eq!(stand.provider.report().arrivals, 0);
}

#[tokio::test]
async fn two_daemons_share_the_limit_and_are_told_of_invalidations() {
    let (folder, database, redis) = (tempfile::tempdir().unwrap(), Database::new().await, RedisServer::start().await);
    let provider = provider(etags()).await;
    let limits = "limits = [{ name = \"core\", max = 6, per = \"1h\" }]";
    let text = declaration(&provider, limits, "cache = { ttl = \"1h\" }");
    let place = |name: &str| Place::shared(&folder.path().join(name), name, &database.url(), &redis.url(), &text);
    let (one, two) = (place("d1").start().await, place("d2").start().await);
    for daemon in [&one, &two] {
        assert_eq!(call(daemon, user("ada")).await.unwrap().cache(), pb::CacheStatus::Miss);
        assert_eq!(call(daemon, user("ada")).await.unwrap().cache(), pb::CacheStatus::Hit);
    }
    provider.change_documents();
    let which = Some(Which::Prefix("/users/".into()));
    client(&one).invalidate_cache(pb::InvalidateCacheRequest { namespace: "github".into(), which }).await.unwrap();
    let fresh = || async { (version(&call(&two, user("ada")).await.unwrap()) == 1).then_some(()) };
    until(Duration::from_secs(20), fresh).await.expect("the other daemon heard of it");
    assert_eq!(version(&call(&one, user("ada")).await.unwrap()), 1);
    // Four of six are spent.
    assert_eq!(provider.report().arrivals, 4);
    call(&one, user("bob")).await.unwrap();
    call(&two, user("eve")).await.unwrap();
    for daemon in [&one, &two] {
        assert_eq!(call(daemon, user("joe")).await.unwrap_err().code(), Code::ResourceExhausted);
    }
}

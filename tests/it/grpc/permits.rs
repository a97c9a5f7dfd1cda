//! PermitService: programs outside and the daemon's own jobs under the same limits.

use tidegate::clock::Clock;
use tidegate::grpc::pb;
use tidegate::grpc::pb::permit_service_client::PermitServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::house::{House, house, ping, told};

fn permits(house: &House) -> PermitServiceClient<Channel> {
    PermitServiceClient::new(house.channel.clone())
}

/// `crm` with these limits.
async fn limited(limits: &str) -> House {
    let house = house().await;
    let source = format!(
        "[providers.crm]\nbase_url = \"http://crm.example\"\nlimits = {limits}\n\n\
         [providers.crm.operations.ping]\nrequest = \"PUT /ping\"\nbody = \"{{payload}}\"\n"
    );
    house.providers().apply_provider(pb::ApplyProviderRequest { source, ..Default::default() }).await.unwrap();
    house
}

fn ask(min: i32, max: i32) -> pb::AcquirePermitsRequest {
    let wait = Some(prost_types::Duration::default());
    pb::AcquirePermitsRequest {
        provider: "crm".into(),
        operation: "ping".into(),
        min_count: min,
        max_count: max,
        wait,
        ..Default::default()
    }
}

fn patient(ask: pb::AcquirePermitsRequest) -> pb::AcquirePermitsRequest {
    pb::AcquirePermitsRequest { wait: Some(prost_types::Duration { seconds: 20, nanos: 0 }), ..ask }
}

async fn acquire(house: &House, ask: pb::AcquirePermitsRequest) -> Result<pb::AcquirePermitsResponse, Status> {
    permits(house).acquire_permits(ask).await.map(tonic::Response::into_inner)
}

/// True: it had ended before.
async fn settle(house: &House, request: pb::SettlePermitsRequest) -> Result<bool, Status> {
    permits(house).settle_permits(request).await.map(|r| r.into_inner().already_settled)
}

fn sent(token: &str, count: i32) -> pb::SettlePermitsRequest {
    pb::SettlePermitsRequest { token: token.into(), sent_count: count, ..Default::default() }
}

#[tokio::test]
async fn permits_and_jobs_spend_the_same_limit_and_what_was_not_sent_returns() {
    let house = limited("[\"5/h\"]").await;
    let ids = [house.enqueue(ping()).await.unwrap(), house.enqueue(ping()).await.unwrap()];
    house.settled(&ids).await;
    let got = acquire(&house, ask(1, 10)).await.unwrap();
    assert_eq!(got.granted_count, 3);
    let none = acquire(&house, ask(1, 1)).await.unwrap();
    assert_eq!((none.granted_count, none.token.as_str()), (0, ""));
    assert!(none.waiting_on.contains("crm/"), "{none:?}");
    assert!(!settle(&house, sent(&got.token, 1)).await.unwrap());
    assert!(settle(&house, sent(&got.token, 3)).await.unwrap(), "it counts once");
    let rest = acquire(&house, ask(1, 10)).await.unwrap();
    assert_eq!(rest.granted_count, 2);
    // All of what a job may spend is out now.
    let id = house.enqueue(ping()).await.unwrap();
    let said = house.jobs().explain_job(pb::ExplainJobRequest { job_id: id.clone() }).await.unwrap().into_inner();
    assert_eq!(said.waiting_on.unwrap().kind(), pb::waiting_on::Kind::Limit);
    settle(&house, sent(&rest.token, 0)).await.unwrap();
    assert_eq!(house.settled(&[id]).await[0].state(), pb::JobState::Delivered);
}

#[tokio::test]
async fn an_ask_waits_for_what_another_program_settles() {
    let house = limited("[{ concurrent = 1 }]").await;
    let first = acquire(&house, ask(1, 1)).await.unwrap();
    let mut client = permits(&house);
    let second = tokio::spawn(async move { client.acquire_permits(patient(ask(1, 1))).await.unwrap().into_inner() });
    let waits = acquire(&house, ask(1, 1)).await.unwrap();
    assert_eq!(waits.granted_count, 0);
    settle(&house, sent(&first.token, 1)).await.unwrap();
    assert_eq!(second.await.unwrap().granted_count, 1);
}

#[tokio::test]
async fn a_429_that_a_program_saw_holds_the_jobs_back() {
    let house = limited("[\"1000/h\"]").await;
    let got = acquire(&house, ask(1, 1)).await.unwrap();
    let headers = vec![pb::ObservedHeader { name: "Retry-After".into(), value: "600".into() }];
    settle(&house, pb::SettlePermitsRequest { status: 429, headers, ..sent(&got.token, 1) }).await.unwrap();
    let id = house.enqueue(ping()).await.unwrap();
    let said = house.jobs().explain_job(pb::ExplainJobRequest { job_id: id }).await.unwrap().into_inner();
    assert_eq!(said.waiting_on.unwrap().kind(), pb::waiting_on::Kind::Limit);
    let none = acquire(&house, ask(1, 1)).await.unwrap();
    let earliest = none.earliest_time.unwrap().seconds - Clock::system().now().0 / 1_000_000;
    assert!(none.granted_count == 0 && (580..=610).contains(&earliest), "{none:?}");
}

/// A program saw this answer to a call of its own. How the limits stand now.
async fn told_by_a_program(status: i32, remaining: &str) -> (House, Vec<pb::LimitStatus>) {
    let house = limited(
        "[{ name = \"core\", max = 1000, per = \"1h\", headers = \"x-ratelimit\" }, { name = \"other\", max = 9, per = \"1m\" }]",
    )
    .await;
    let got = acquire(&house, ask(1, 1)).await.unwrap();
    let reset = (Clock::system().now().0 / 1_000_000 + 600).to_string();
    let lines = [("X-RateLimit-Limit", "1000"), ("X-RateLimit-Remaining", remaining), ("X-RateLimit-Reset", &reset)];
    let headers = lines.iter().map(|(n, v)| pb::ObservedHeader { name: (*n).into(), value: (*v).into() }).collect();
    settle(&house, pb::SettlePermitsRequest { status, headers, ..sent(&got.token, 1) }).await.unwrap();
    let request = pb::GetProviderStatusRequest { name: "crm".into() };
    let limits = house.providers().get_provider_status(request).await.unwrap().into_inner().status.unwrap().limits;
    (house, limits)
}

#[tokio::test]
async fn what_an_answer_to_a_program_says_is_left_binds_everybody() {
    let (house, limits) = told_by_a_program(200, "2").await;
    let core = limits.iter().find(|l| l.name == "core").unwrap();
    let told = core.told.as_ref().unwrap();
    assert_eq!((core.free, told.max, told.remaining), (2, Some(1_000), Some(2)), "{core:?}");
    assert_eq!(acquire(&house, ask(1, 10)).await.unwrap().granted_count, 2);
    let none = acquire(&house, ask(1, 1)).await.unwrap();
    assert!(none.granted_count == 0 && none.waiting_on.contains("crm/core"), "{none:?}");
}

#[tokio::test]
async fn a_refusal_that_a_program_saw_blocks_only_the_limit_that_has_nothing_left_until_its_reset() {
    let (house, limits) = told_by_a_program(429, "0").await;
    let blocked = |name: &str| limits.iter().find(|l| l.name == name).unwrap().blocked_until_time;
    assert!(blocked("core").is_some() && blocked("other").is_none(), "{limits:?}");
    let none = acquire(&house, ask(1, 1)).await.unwrap();
    let earliest = none.earliest_time.unwrap().seconds - Clock::system().now().0 / 1_000_000;
    assert!(none.granted_count == 0 && (580..=601).contains(&earliest), "no penalty of a second: {none:?}");
}

#[tokio::test]
async fn permits_whose_lease_ended_count_as_sent_and_block_nobody() {
    let house = limited("[\"3/h\", { concurrent = 2 }]").await;
    let lease = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let got = acquire(&house, pb::AcquirePermitsRequest { lease, ..ask(2, 2) }).await.unwrap();
    assert_eq!(got.granted_count, 2);
    let waits = acquire(&house, ask(1, 1)).await.unwrap();
    assert_eq!((waits.granted_count, waits.waiting_on.contains("concurrent")), (0, true), "{waits:?}");
    // Nobody settles: the job leaves all the same, once the lease is over.
    let id = house.enqueue(ping()).await.unwrap();
    assert_eq!(house.settled(&[id]).await[0].state(), pb::JobState::Delivered);
    assert!(settle(&house, sent(&got.token, 0)).await.unwrap(), "a settle after the lease is told so");
    let spent = acquire(&house, ask(1, 1)).await.unwrap();
    assert_eq!((spent.granted_count, spent.waiting_on.contains("3600s")), (0, true), "{spent:?}");
}

#[tokio::test]
async fn asks_that_make_no_sense_are_refused_with_their_field() {
    let house = limited("[\"5/h\"]").await;
    let check = async |ask: pb::AcquirePermitsRequest, code: Code, reason: &str| {
        let status = acquire(&house, ask).await.unwrap_err();
        assert_eq!((status.code(), told(&status).0.as_str()), (code, reason));
    };
    check(pb::AcquirePermitsRequest { provider: "nobody".into(), ..ask(1, 1) }, Code::NotFound, "NO_SUCH_PROVIDER")
        .await;
    check(pb::AcquirePermitsRequest { method: "GET".into(), ..ask(1, 1) }, Code::InvalidArgument, "TWO_WAYS").await;
    let method = pb::AcquirePermitsRequest { operation: String::new(), method: "get".into(), ..ask(1, 1) };
    check(method, Code::InvalidArgument, "BAD_METHOD").await;
    check(ask(5, 2), Code::InvalidArgument, "BAD_COUNT").await;
    check(ask(1, 1_001), Code::InvalidArgument, "BAD_COUNT").await;
    check(pb::AcquirePermitsRequest { lane: 2, ..ask(1, 1) }, Code::InvalidArgument, "NO_SUCH_LANE").await;
    let lease = Some(prost_types::Duration { seconds: 601, nanos: 0 });
    check(pb::AcquirePermitsRequest { lease, ..ask(1, 1) }, Code::InvalidArgument, "BAD_DURATION").await;
    let got = acquire(&house, ask(2, 2)).await.unwrap();
    let status = settle(&house, sent(&got.token, 3)).await.unwrap_err();
    assert_eq!(told(&status).0, "MORE_THAN_GRANTED");
    let nobodys = "019aa8c2-7d31-7123-8000-000000000001";
    assert_eq!(settle(&house, sent(nobodys, 0)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(settle(&house, sent("x", 0)).await.unwrap_err().code(), Code::InvalidArgument);
    house.pause().await;
    let paused = acquire(&house, ask(1, 1)).await.unwrap();
    assert_eq!((paused.granted_count, paused.earliest_time), (0, None));
    assert!(paused.waiting_on.contains("paused"), "{paused:?}");
}

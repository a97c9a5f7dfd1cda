//! Credentials of real daemons against a provider that asks for tokens: one refresh for many calls, rotation that outlives
//! a kill, breakers of single accounts, and no secret anywhere.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::grpc::pb;
use tidegate::grpc::pb::call_service_client::CallServiceClient;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::grpc::pb::provider_service_client::ProviderServiceClient;
use tidegate::simulator::{Latency, Simulator, SimulatorConfig, SimulatorHandle, TokenFault, TokenRules};

use crate::support::process::{Daemon, Place, until};
use crate::support::redis::RedisServer;
use crate::support::servers::Database;

mod refused;

const PATIENCE: Duration = Duration::from_secs(60);
/// Calls that find the token expired.
const CALLS: usize = 200;
/// Long enough that all of them are on the wire before the first is refused.
const LATENCY: Duration = Duration::from_secs(2);

async fn provider(tokens: TokenRules, latency: Duration) -> SimulatorHandle {
    let latency = Latency { median: latency, ..Latency::none() };
    let config = SimulatorConfig { tokens: Some(tokens), latency, keep_arrivals: 10_000, ..SimulatorConfig::default() };
    Simulator::start(config).await.unwrap()
}

fn secret(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// The provider `crm` with `more` in its table and one operation whose path names the account.
fn declaration(provider: &SimulatorHandle, more: &str) -> String {
    format!(
        "[providers.crm]\nbase_url = \"{}\"\nallow_private = true\nin_flight_max = 256\n{more}\n\
         [providers.crm.operations.sync]\nrequest = \"PUT /users/{{account}}.{{job_id}}\"\nbody = \"{{payload}}\"\n\
         retry = {{ attempts = 3, base = \"200ms\", cap = \"500ms\" }}\n",
        provider.base_url()
    )
}

/// With a refresh token, in a table `auth`.
fn oauth2(provider: &SimulatorHandle, folder: &Path, rules: &TokenRules) -> String {
    let client = secret(folder, "client", &rules.client_secret);
    let refresh = secret(folder, "refresh", &rules.refresh_token);
    format!(
        "{{ oauth2 = {{ token_url = \"{}/oauth/token\", grant = \"refresh_token\", client_id = \"tidegate\", \
         client_secret = {{ file = {client:?} }}, refresh_token = {{ file = {refresh:?} }} }} }}",
        provider.base_url()
    )
}

fn seal_key(folder: &Path) -> String {
    format!("[secrets]\nkey = {{ file = {:?} }}\n", secret(folder, "seal", &"5a".repeat(32)))
}

async fn enqueue(daemon: &Daemon, accounts: &[&str], count: usize) -> Vec<String> {
    let spec = |n: usize| pb::JobSpec {
        provider: "crm".to_owned(),
        operation: "sync".to_owned(),
        account: accounts[n % accounts.len()].to_owned(),
        payload: format!("{{\"id\":\"k{n}\"}}"),
        ..pb::JobSpec::default()
    };
    let request = pb::EnqueueJobsRequest { jobs: (0..count).map(spec).collect(), ..Default::default() };
    let answer = JobServiceClient::new(daemon.channel()).enqueue_jobs(request).await.unwrap().into_inner();
    assert_eq!(usize::try_from(answer.accepted_count), Ok(count));
    let jobs = daemon.all_jobs().await;
    jobs.iter().filter(|job| accounts.contains(&job.account.as_str())).map(|job| job.id.clone()).collect()
}

async fn explain(daemon: &Daemon, job: &str) -> (pb::ExplainJobResponse, String) {
    let request = pb::ExplainJobRequest { job_id: job.to_owned() };
    let said = JobServiceClient::new(daemon.channel()).explain_job(request).await.unwrap().into_inner();
    let sentence = said.sentence.clone();
    (said, sentence)
}

async fn status(daemon: &Daemon) -> pb::ProviderStatus {
    let request = pb::GetProviderStatusRequest { name: "crm".to_owned() };
    let answer = ProviderServiceClient::new(daemon.channel()).get_provider_status(request).await.unwrap();
    answer.into_inner().status.unwrap()
}

async fn delivered(daemon: &Daemon, count: usize) {
    let counts = daemon.drained("crm", PATIENCE).await.expect("everything is delivered");
    assert_eq!(counts.delivered, count as i64);
}

/// A token must be half a second old to be taken for one that has expired.
async fn age() {
    tokio::time::sleep(Duration::from_millis(600)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_that_find_the_token_expired_cost_one_refresh_and_no_attempt() {
    let (folder, rules) = (tempfile::tempdir().unwrap(), TokenRules::default());
    let provider = provider(rules.clone(), LATENCY).await;
    let auth = oauth2(&provider, folder.path(), &rules);
    // Without a key as well: then the rotated refresh token is in memory.
    for key in ["", &seal_key(folder.path())] {
        let place = Place::new(
            folder.path(),
            folder.path(),
            &format!("{key}{}", declaration(&provider, &format!("auth = {auth}"))),
        );
        if !key.is_empty() {
            std::fs::remove_file(folder.path().join("tidegate.db")).unwrap();
        }
        let daemon = place.start().await;
        let before = provider.report().tokens;
        if !key.is_empty() {
            // The first daemon used it up, and took what replaced it with it.
            secret(folder.path(), "refresh", &format!("sim-refresh-{}", before.given));
        }
        enqueue(&daemon, &["a", "b", "c"], 9).await;
        delivered(&daemon, 9).await;
        assert_eq!(provider.report().tokens.given, before.given + 1, "the first token");
        age().await;
        provider.revoke_tokens();
        enqueue(&daemon, &["a", "b", "c"], CALLS).await;
        delivered(&daemon, 9 + CALLS).await;
        let after = provider.report().tokens;
        eprintln!(
            "{} calls found the token expired: {:?} {:?}",
            after.refused_calls - before.refused_calls,
            before,
            after
        );
        assert_eq!(after.given, before.given + 2, "one refresh");
        assert_eq!((after.asked, after.reused), (after.given, 0));
        assert!(after.refused_calls - before.refused_calls > CALLS as u64 / 2, "{after:?}");
        assert!(daemon.all_jobs().await.iter().all(|job| job.attempts == 1), "an attempt was counted");
        assert!(daemon.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_that_find_the_token_expired_refresh_it_once() {
    let (folder, database, redis) = (tempfile::tempdir().unwrap(), Database::new().await, RedisServer::start().await);
    let rules = TokenRules { latency: Duration::from_millis(200), ..TokenRules::default() };
    let provider = provider(rules.clone(), LATENCY).await;
    let auth = format!("auth = {}", oauth2(&provider, folder.path(), &rules));
    let text = format!("{}{}", seal_key(folder.path()), declaration(&provider, &auth));
    let place = |name: &str| Place::shared(&folder.path().join(name), name, &database.url(), &redis.url(), &text);
    let places = [place("d1"), place("d2")];
    let daemons = [places[0].start().await, places[1].start().await];
    let shares = async || [status(&daemons[0]).await.partitions_held, status(&daemons[1]).await.partitions_held];
    let is_fair = |shares: [Option<i32>; 2]| shares.iter().all(|held| held.is_some_and(|held| held >= 20));
    let balanced = until(PATIENCE, async || is_fair(shares().await).then_some(())).await;
    assert!(balanced.is_some(), "{:?}", shares().await);
    let names: Vec<String> = (0..40).map(|n| format!("acct-{n}")).collect();
    let accounts: Vec<&str> = names.iter().map(String::as_str).collect();
    enqueue(&daemons[0], &accounts, 80).await;
    delivered(&daemons[0], 80).await;
    assert_eq!(provider.report().tokens.given, 1, "the second daemon reads what the first one got");
    age().await;
    provider.revoke_tokens();
    enqueue(&daemons[1], &accounts, CALLS).await;
    delivered(&daemons[1], 80 + CALLS).await;
    let tokens = provider.report().tokens;
    eprintln!("{} calls of two daemons found the token expired", tokens.refused_calls);
    assert_eq!((tokens.given, tokens.asked, tokens.reused), (2, 2, 0), "{tokens:?}");
    assert!(tokens.refused_calls > CALLS as u64 / 2, "{tokens:?}");
    for daemon in daemons {
        let lanes = status(&daemon).await.operations[0].lanes.clone();
        assert!(lanes.iter().map(|lane| lane.call_count).sum::<i64>() > 40, "both daemons sent: {lanes:?}");
        assert!(daemon.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_refresh_token_survives_a_kill_and_a_restart() {
    let (folder, rules) = (tempfile::tempdir().unwrap(), TokenRules::default());
    let provider = provider(rules.clone(), Duration::from_millis(5)).await;
    let auth = format!("auth = {}", oauth2(&provider, folder.path(), &rules));
    let text = format!("{}{}", seal_key(folder.path()), declaration(&provider, &auth));
    let place = Place::new(folder.path(), folder.path(), &text);
    for life in 1..=3 {
        let daemon = place.start().await;
        enqueue(&daemon, &["a"], 5).await;
        delivered(&daemon, 5 * (2 * life - 1)).await;
        // The token of the life before is still good.
        assert_eq!(provider.report().tokens.given, life as u64);
        age().await;
        provider.revoke_tokens();
        enqueue(&daemon, &["a"], 5).await;
        delivered(&daemon, 5 * 2 * life).await;
        assert_eq!(provider.report().tokens.given, life as u64 + 1);
        daemon.kill(&Clock::system()).await;
    }
    assert_eq!(provider.report().tokens.reused, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_gone_stops_its_account_until_somebody_resets_it() {
    let folder = tempfile::tempdir().unwrap();
    let rules =
        TokenRules { keys: vec!["good-key".to_owned()], fault: TokenFault::InvalidGrant, ..TokenRules::default() };
    let provider = provider(rules.clone(), Duration::from_millis(5)).await;
    let (good, late) = (secret(folder.path(), "good", "good-key"), folder.path().join("late"));
    let more = format!(
        "auth = {{ bearer = {{ file = {good:?} }} }}\naccounts = {{ gone = {{ auth = {} }}, late = {{ auth = {{ bearer = \
         {{ file = {late:?} }} }} }} }}",
        oauth2(&provider, folder.path(), &rules)
    );
    let place = Place::new(folder.path(), folder.path(), &declaration(&provider, &more));
    let mut daemon = place.start().await;
    let gone = enqueue(&daemon, &["gone"], 20).await;
    let waiting = enqueue(&daemon, &["late"], 20).await;
    enqueue(&daemon, &["x", "y"], 100).await;
    let others = until(PATIENCE, async || (status(&daemon).await.counts?.delivered == 100).then_some(())).await;
    assert!(others.is_some(), "others go on: {:?}", status(&daemon).await);
    for life in 0..2 {
        // Each was tried once more or less; then it is the breaker that they wait for.
        let waits = until(PATIENCE, async || {
            let (said, sentence) = explain(&daemon, &gone[0]).await;
            (said.waiting_on.is_some() && sentence.contains("account gone is open")).then_some(sentence)
        });
        let sentence = waits.await.expect("the job says that its credential's breaker is open");
        assert!(sentence.contains("invalid_grant") && sentence.contains("reset the breaker"), "{sentence}");
        let (_, sentence) = explain(&daemon, &waiting[0]).await;
        assert!(sentence.contains("account late cannot be had") && sentence.contains("No such file"), "{sentence}");
        let status = status(&daemon).await;
        assert_eq!(status.breaker.unwrap().state(), pb::breaker::State::Closed);
        let shown: Vec<&str> = status.credentials.iter().map(|c| c.account.as_str()).collect();
        assert_eq!(shown, ["gone", "late"]);
        assert_eq!(provider.report().tokens.asked, 1, "nothing is asked for again");
        if life == 0 {
            daemon.kill(&Clock::system()).await;
            daemon = place.start().await;
        }
    }
    std::fs::write(&late, "good-key").unwrap();
    let found = until(PATIENCE, async || (status(&daemon).await.counts?.delivered == 120).then_some(())).await;
    assert!(found.is_some(), "a secret that came is found: {:?}", status(&daemon).await);
    provider.set_token_fault(TokenFault::None);
    let reset = pb::ResetBreakerRequest { name: "crm".to_owned() };
    ProviderServiceClient::new(daemon.channel()).reset_breaker(reset).await.unwrap();
    delivered(&daemon, 140).await;
    assert!(daemon.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_is_left_alone_and_its_jobs_wait_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let rules = TokenRules { fault: TokenFault::Unavailable, ..TokenRules::default() };
    let provider = provider(rules.clone(), Duration::from_millis(5)).await;
    let auth = format!("auth = {}", oauth2(&provider, folder.path(), &rules));
    let place = Place::new(folder.path(), folder.path(), &declaration(&provider, &auth));
    let daemon = place.start().await;
    let jobs = enqueue(&daemon, &["a"], 100).await;
    let asked = until(PATIENCE, async || (provider.report().tokens.asked >= 3).then_some(())).await;
    assert!(asked.is_some());
    // The call that asks in this moment is under way; it ends with the reason.
    let says_why = until(PATIENCE, async || {
        let (_, sentence) = explain(&daemon, &jobs[0]).await;
        (sentence.contains("status 503") || sentence.contains("due at")).then_some(())
    });
    assert!(says_why.await.is_some(), "{:?}", explain(&daemon, &jobs[0]).await.1);
    let report = provider.report();
    assert_eq!(report.arrivals, 0, "no call leaves without a token");
    assert!(report.tokens.asked <= 4, "1 s, then 2 s, then 4 s apart: {:?}", report.tokens);
    provider.set_token_fault(TokenFault::None);
    delivered(&daemon, 100).await;
    assert!(daemon.all_jobs().await.iter().all(|job| job.attempts == 1));
    assert!(daemon.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_wait_show_the_token_and_go_again_when_it_was_outdated() {
    let (folder, rules) = (tempfile::tempdir().unwrap(), TokenRules::default());
    let provider = provider(rules.clone(), Duration::from_millis(50)).await;
    let auth = format!("auth = {}", oauth2(&provider, folder.path(), &rules));
    let place = Place::new(folder.path(), folder.path(), &declaration(&provider, &auth));
    let daemon = place.start().await;
    let ask = |n: usize| pb::CallRequest {
        provider: "crm".to_owned(),
        operation: "sync".to_owned(),
        account: format!("acct-{n}"),
        payload: format!("{{\"id\":\"k{n}\"}}"),
        max_wait: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
        ..Default::default()
    };
    let round = async || {
        let calls = (0..20).map(|n| {
            let mut client = CallServiceClient::new(daemon.channel());
            async move { client.call(ask(n)).await.unwrap().into_inner().status }
        });
        futures_util::future::join_all(calls).await
    };
    assert_eq!(round().await, [200; 20]);
    age().await;
    provider.revoke_tokens();
    assert_eq!(round().await, [200; 20], "{:?}", provider.report().tokens);
    let tokens = provider.report().tokens;
    assert_eq!(tokens.given, 2, "{tokens:?}");
    assert!(tokens.refused_calls > 0, "{tokens:?}");
    // A grant that is gone: the first caller hears it from the endpoint, the next ones from the breaker, at once.
    age().await;
    age().await;
    provider.set_token_fault(TokenFault::InvalidGrant);
    provider.revoke_tokens();
    for _ in 0..3 {
        let mut client = CallServiceClient::new(daemon.channel());
        let refused = client.call(ask(0)).await.unwrap_err();
        assert!(refused.message().contains("invalid_grant"), "{refused:?}");
    }
    assert_eq!(provider.report().tokens.asked, 3, "nothing is asked for again");
    assert!(daemon.stop().await);
}

/// Everything that the daemon left behind in a folder, beside the secrets themselves.
fn leavings(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.is_file() && !path.to_string_lossy().contains("secret-"));
    files.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_logs_pages_events_errors_metrics_or_answers() {
    let folder = tempfile::tempdir().unwrap();
    let rules = TokenRules {
        client_secret: "canary-client".to_owned(),
        refresh_token: "canary-refresh".to_owned(),
        prefix: "canary-token".to_owned(),
        keys: vec!["canary/key".to_owned()],
        life: Duration::from_secs(4),
        ..TokenRules::default()
    };
    let provider = provider(rules.clone(), Duration::from_millis(5)).await;
    let oauth2 = {
        let (client, refresh) = (
            secret(folder.path(), "secret-c", &rules.client_secret),
            secret(folder.path(), "secret-r", &rules.refresh_token),
        );
        format!(
            "{{ oauth2 = {{ token_url = \"{}/oauth/token\", grant = \"refresh_token\", client_id = \"tidegate\", style = \"body\", \
             client_secret = {{ file = {client:?} }}, refresh_token = {{ file = {refresh:?} }} }} }}",
            provider.base_url()
        )
    };
    let key = secret(folder.path(), "secret-k", "canary/key");
    let wrong = secret(folder.path(), "secret-w", "canary-wrong");
    let query = |file: &Path| format!("{{ query = {{ name = \"api_key\", value = {{ file = {file:?} }} }} }}");
    let more = format!(
        "auth = {oauth2}\naccounts = {{ q = {{ auth = {} }}, wrong = {{ auth = {} }} }}",
        query(&key),
        query(&wrong)
    );
    // A second provider that nobody answers for, so that errors of the client are seen too.
    let dead = declaration(&provider, &format!("auth = {}", query(&key)))
        .replace("providers.crm", "providers.dead")
        .replace(&provider.base_url(), "http://127.0.0.1:9");
    let seal = format!("[secrets]\nkey = {{ file = {:?} }}\n", secret(folder.path(), "secret-s", &"5a".repeat(32)));
    let text = format!("{seal}[log]\nlevel = \"trace\"\n{}{dead}", declaration(&provider, &more));
    let place = Place::new(folder.path(), folder.path(), &text);
    let http = crate::support::process::free_port();
    let config = std::fs::read_to_string(&place.config).unwrap();
    std::fs::write(
        &place.config,
        config.replace("listen = \"127.0.0.1:0\"", &format!("listen = \"127.0.0.1:{http}\"")),
    )
    .unwrap();
    let daemon = place.start().await;
    enqueue(&daemon, &["a", "q", "wrong"], 30).await;
    let spec = pb::JobSpec {
        provider: "dead".to_owned(),
        operation: "sync".to_owned(),
        payload: "{}".to_owned(),
        ..pb::JobSpec::default()
    };
    let request = pb::EnqueueJobsRequest { jobs: vec![spec; 3], ..Default::default() };
    JobServiceClient::new(daemon.channel()).enqueue_jobs(request).await.unwrap();
    // Twenty go, ten are refused; then the token ends, is refreshed, and at last the endpoint refuses with words that
    // repeat the secrets.
    let settled = until(PATIENCE, async || {
        let counts = status(&daemon).await.counts?;
        (counts.delivered == 20 && provider.report().tokens.refused_calls >= 3).then_some(())
    });
    assert!(settled.await.is_some(), "{:?}", status(&daemon).await);
    age().await;
    provider.revoke_tokens();
    enqueue(&daemon, &["a"], 5).await;
    assert!(until(PATIENCE, async || (status(&daemon).await.counts?.delivered == 25).then_some(())).await.is_some());
    provider.set_token_fault(TokenFault::InvalidGrant);
    // A second refresh in a row is forced after a second only.
    age().await;
    age().await;
    provider.revoke_tokens();
    let last = enqueue(&daemon, &["a"], 1).await;
    let refused = until(PATIENCE, async || {
        let jobs = daemon.all_jobs().await;
        let newest = jobs.iter().find(|job| last.contains(&job.id) && job.state == pb::JobState::Waiting as i32)?;
        explain(&daemon, &newest.id).await.1.contains("invalid_grant").then_some(())
    });
    assert!(refused.await.is_some(), "{:?}", status(&daemon).await);

    let mut said: Vec<(String, Vec<u8>)> = Vec::new();
    let address = format!("127.0.0.1:{}", place.port);
    for arguments in [
        &["jobs", "list", "-o", "json"][..],
        &["providers", "get", "crm", "-o", "json"],
        &["providers", "status", "crm", "-o", "json"],
        &["breakers", "list", "-o", "json"],
        &["breakers", "list"],
        &["events", "tail", "--no-follow", "--after", "0", "-o", "json"],
        &["providers", "test", "dead", "-o", "json"],
        &["providers", "test", "crm", "-o", "json"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let output = command.args(arguments).env("TIDEGATE_ADDR", &address).output().unwrap();
        said.push((arguments.join(" "), [output.stdout, output.stderr].concat()));
    }
    for job in daemon.all_jobs().await {
        said.push(("a job".to_owned(), format!("{job:?} {}", explain(&daemon, &job.id).await.1).into_bytes()));
    }
    let metrics = reqwest::get(format!("http://127.0.0.1:{http}/metrics")).await.unwrap().bytes().await.unwrap();
    assert!(metrics.len() > 1_000);
    said.push(("metrics".to_owned(), metrics.to_vec()));
    let before_the_end = leavings(folder.path());
    assert!(daemon.stop().await);
    let files = before_the_end.into_iter().chain(leavings(folder.path()));
    said.extend(files.map(|(path, bytes)| (path.display().to_string(), bytes)));
    let names: Vec<&String> = said.iter().map(|(name, _)| name).collect();
    assert!(names.iter().any(|n| n.ends_with("tidegate.db")) && names.iter().any(|n| n.ends_with("daemon.log")));
    let base64 = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let mut canaries: Vec<String> =
        ["canary-client", "canary-refresh", "canary-token", "canary/key", "canary%2Fkey", "canary-wrong"]
            .map(str::to_owned)
            .into();
    canaries.extend([base64("tidegate:canary-client"), "5a".repeat(32)]);
    for (name, bytes) in &said {
        assert!(!bytes.is_empty() || name.ends_with(".lock") || name.contains("tidegate.db-"), "{name} says nothing");
        for canary in &canaries {
            let at = bytes.windows(canary.len()).position(|window| window == canary.as_bytes());
            let around = at.map(|at| {
                String::from_utf8_lossy(&bytes[at.saturating_sub(200)..(at + 100).min(bytes.len())]).into_owned()
            });
            assert!(around.is_none(), "{canary} is in {name}: {around:?}");
        }
    }
    // The events and jobs are not empty, and the search finds what is there.
    assert!(said.iter().any(|(name, bytes)| name.starts_with("jobs list") && bytes.len() > 1_000));
    assert!(said.iter().any(|(_, bytes)| bytes.windows(13).any(|window| window == b"invalid_grant")));
}

//! Every provider profile against a simulator that counts and refuses as its API says that it does.
//!
//! Four questions. With the numbers that the API publishes: is no call refused? Where calls cost more and less of a limit: is
//! it used to its last unit, and no further? Where it allows much less than the profile says, in its own way of refusing:
//! does every job arrive in the end, with no attempt used up, and is a number that was guessed learned? Are lists pulled to
//! their end, as the API tells its pages? And every operation of every profile is called, which `providers/operations.rs` reads
//! from the files. What the APIs are stands in `providers/cases.rs`.

use std::path::Path;
use std::time::Duration;

use tidegate::app::App;
use tidegate::cli::init::profiles::PROFILES;
use tidegate::config::{self, LoadOptions};
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::grpc::pb::provider_service_client::ProviderServiceClient;
use tidegate::grpc::pb::record_service_client::RecordServiceClient;
use tidegate::simulator::tokens::TokenRules;
use tidegate::simulator::{ListRule, Report, Shape, Simulator, SimulatorConfig, SimulatorHandle};
use tonic::transport::Channel;

use crate::support::process::until;

mod cases;
mod operations;

use cases::{CASES, COSTLY, Case, GUESSED, LISTS, Work};
use operations::Operation;

const PATIENCE: Duration = Duration::from_secs(90);
/// What a stingy API allows.
const STINGY: &str = "rolling:3/1s";

/// A profile whose API is on this machine, and whose secrets are files in the folder.
fn adapted(text: &str, base_url: &str, folder: &Path) -> String {
    let mut made = String::new();
    for line in text.lines() {
        let mut line = line.to_owned();
        while let Some((before, rest)) = line.split_once("{ env = \"") {
            let (name, after) = rest.split_once("\" }").unwrap();
            let file = folder.join(name);
            std::fs::write(&file, secret(name)).unwrap();
            line = format!("{before}{{ file = {file:?} }}{after}");
        }
        if let Some((before, rest)) = line.split_once("token_url = \"") {
            let (_, after) = rest.split_once('"').unwrap();
            line = format!("{before}token_url = \"{base_url}/token\"{after}");
        }
        if let Some(url) = line.strip_prefix("base_url = \"") {
            let path = url.trim_end_matches('"').splitn(4, '/').nth(3).unwrap_or_default();
            line = format!("base_url = \"{base_url}/{path}\"\nallow_private = true");
        }
        made += &line;
        made.push('\n');
    }
    made
}

fn secret(name: &str) -> String {
    format!("secret-of-{name}")
}

/// The API lets in who shows the profile's secret, or a token that was given for it.
fn doorkeeper(text: &str) -> Option<TokenRules> {
    let names = text.split("{ env = \"").skip(1).filter_map(|rest| rest.split('"').next());
    let keys: Vec<String> = names.map(secret).collect();
    let named = |what: &str| keys.iter().find(|key| key.ends_with(what)).cloned().unwrap_or_default();
    let rules = TokenRules {
        path: "/token".to_owned(),
        client_id: "your client id".to_owned(),
        client_secret: named("_CLIENT_SECRET"),
        refresh_token: named("_REFRESH_TOKEN"),
        keys: if text.contains("oauth2") { Vec::new() } else { keys.clone() },
        ..TokenRules::default()
    };
    (!keys.is_empty()).then_some(rules)
}

struct Stage {
    app: App,
    simulator: SimulatorHandle,
    channel: Channel,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn start(case: &Case, limits: &[&str]) -> Stage {
        let mut provider = SimulatorConfig {
            refuse_status: case.status,
            headers: case.headers,
            keep_arrivals: 10_000,
            ..SimulatorConfig::default()
        };
        for limit in limits {
            provider = provider.limit(limit).unwrap();
        }
        let told = case.told.iter().map(|(name, _)| (*name).to_owned());
        provider.headers_of = told.filter(|name| provider.limits.iter().any(|l| l.name == *name)).collect();
        if !case.body.is_empty() {
            provider.refuse_body = case.body.to_owned();
        }
        Stage::with(case.profile, provider, "").await
    }

    /// A daemon with one profile, and its API.
    async fn with(profile: &str, mut provider: SimulatorConfig, more: &str) -> Stage {
        let text = PROFILES.iter().find(|(name, _)| *name == profile).unwrap().1;
        provider.tokens = doorkeeper(text);
        let simulator = Simulator::start(provider).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nsocket = \"none\"\n[http]\nlisten = \"127.0.0.1:0\"\n[store]\npath = {:?}\n",
            folder.path().join("tidegate.db")
        );
        let file = folder.path().join("tidegate.toml");
        let declared = adapted(text, &simulator.base_url(), folder.path());
        std::fs::write(&file, [&settings, &declared, more].concat()).unwrap();
        let options = LoadOptions { file: Some(file), ..LoadOptions::default() };
        let loaded = config::load(&options).unwrap_or_else(|problems| panic!("{profile}: {problems}"));
        let app = App::start(loaded, options).await.unwrap();
        let endpoint = Channel::from_shared(format!("http://{}", app.address().unwrap())).unwrap();
        Stage { app, simulator, channel: endpoint.connect().await.unwrap(), _folder: folder }
    }

    /// Hands the work in, at most so many jobs of each operation, and says how many those are.
    async fn enqueue(&self, profile: &str, work: &[Work], most: usize) -> usize {
        let mut specs = Vec::new();
        for work in work {
            let fill = |text: &str, n: usize| text.replace("{n}", &n.to_string()).replace("{m}", &(n % 4).to_string());
            specs.extend((0..work.jobs.min(most)).map(|n| pb::JobSpec {
                provider: profile.to_owned(),
                operation: work.operation.to_owned(),
                key: fill(work.key, n),
                payload: fill(work.payload, n),
                ..Default::default()
            }));
        }
        let count = specs.len();
        let request = pb::EnqueueJobsRequest { jobs: specs, ..Default::default() };
        let accepted = JobServiceClient::new(self.channel.clone()).enqueue_jobs(request).await.unwrap().into_inner();
        assert_eq!(accepted.accepted_count as usize, count, "{profile}: {accepted:?}");
        count
    }

    /// Hands the work in and waits until all of it has arrived.
    async fn run(&self, case: &Case, most: usize) {
        let wanted = self.enqueue(case.profile, case.work, most).await;
        let client = JobServiceClient::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        let seen = std::cell::RefCell::new(Vec::new());
        let done = until(PATIENCE, || {
            let jobs = client.clone();
            let seen = &seen;
            async move {
                let all = all_jobs(jobs).await;
                let over = |job: &&pb::Job| !matches!(job.state(), pb::JobState::Waiting | pb::JobState::Calling);
                let ended = all.iter().filter(over).count();
                *seen.borrow_mut() = all;
                (ended == wanted).then_some(())
            }
        });
        let done = done.await;
        let jobs = seen.into_inner();
        for job in &jobs {
            assert_eq!(job.state(), pb::JobState::Delivered, "{}: {job:?}", case.profile);
            assert_eq!(job.attempts, 1, "{}: a refusal uses up no attempt: {job:?}", case.profile);
        }
        assert!(done.is_some(), "{}: not all jobs were through in time", case.profile);
    }

    async fn status(&self, profile: &str) -> pb::ProviderStatus {
        let request = pb::GetProviderStatusRequest { name: profile.to_owned() };
        let mut client = ProviderServiceClient::new(self.channel.clone());
        client.get_provider_status(request).await.unwrap().into_inner().status.unwrap()
    }

    /// Refusals have taught the daemon less than the numbers that were guessed, and nothing of those that are published.
    async fn has_learned(&self, case: &Case) {
        for limit in self.status(case.profile).await.limits {
            let taught = limit.refused_at_max.is_some_and(|refused_at| limit.max < refused_at);
            let guessed = GUESSED.contains(&(case.profile, &limit.name));
            assert_eq!(taught, guessed, "{}/{}: {limit:?}", case.profile, limit.name);
        }
    }

    /// The daemon has read what the API's answers say of its limits.
    async fn was_told(&self, case: &Case) {
        let status = self.status(case.profile).await;
        let told = |name: &str| {
            let of = status.limits.iter().find(|l| l.name == name && l.told.is_some());
            of.and_then(|l| l.told)
                .unwrap_or_else(|| panic!("{}: nothing was told of {name}: {status:?}", case.profile))
        };
        for &(name, max) in case.told {
            let told = told(name);
            let left = told.remaining.unwrap_or(-1);
            assert!(told.max == Some(max) && (0..max).contains(&left), "{}/{name}: {told:?}", case.profile);
            assert!(told.heard_time.is_some(), "{}/{name}: {told:?}", case.profile);
        }
        let others = status.limits.iter().filter(|l| l.told.is_some() && !case.told.iter().any(|(n, _)| *n == l.name));
        assert_eq!(others.count(), 0, "{}: told of what its answers do not speak of: {status:?}", case.profile);
    }

    /// Every operation of the case came to the API as its profile declares it, and was taken.
    fn all_arrived(&self, case: &Case) {
        let arrivals = self.simulator.arrivals();
        for work in case.work {
            let name = format!("{}/{}", case.profile, work.operation);
            assert!(operation(&name).arrived(&arrivals), "{name}: no call of it was taken");
        }
    }

    async fn end(self) -> Report {
        self.app.stop().await;
        self.simulator.stop().await
    }
}

fn operation(name: &str) -> Operation {
    let found = operations::declared().into_iter().find(|operation| operation.name == name);
    found.unwrap_or_else(|| panic!("no profile declares {name}"))
}

async fn all_jobs(mut client: JobServiceClient<Channel>) -> Vec<pb::Job> {
    let (mut jobs, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListJobsRequest { page_size: 1_000, page_token, ..Default::default() };
        let page = client.list_jobs(request).await.unwrap().into_inner();
        jobs.extend(page.jobs);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return jobs;
        }
    }
}

#[test]
fn every_profile_has_a_case() {
    let cases: Vec<&str> = CASES.iter().map(|case| case.profile).collect();
    let profiles: Vec<&str> = PROFILES.iter().map(|(name, _)| *name).collect();
    assert_eq!(cases, profiles);
}

/// A command in the documents that names a profile names an operation of it.
#[test]
fn documents_call_what_profiles_declare() {
    let declared = operations::declared();
    let mut seen = 0;
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap().flatten() {
        let text = if file.path().is_file() { std::fs::read_to_string(file.path()).unwrap() } else { continue };
        for rest in ["tidegate call ", "tidegate enqueue "].iter().flat_map(|verb| text.split(verb).skip(1)) {
            let target = rest.split(|c: char| c.is_whitespace() || c == '`').next().unwrap();
            let of_a_profile =
                target.split_once('/').is_some_and(|(name, _)| PROFILES.iter().any(|(profile, _)| *profile == name));
            if of_a_profile {
                let found = declared.iter().any(|operation| operation.name == target);
                assert!(found, "{:?}: no profile declares {target}", file.path());
                seen += 1;
            }
        }
    }
    assert!(seen >= 2, "only {seen} commands were found");
}

#[test]
fn every_operation_of_every_profile_is_called() {
    let named = |case: &Case| case.work.iter().map(|work| format!("{}/{}", case.profile, work.operation)).collect();
    let mut called: Vec<String> = CASES.iter().flat_map(|case| -> Vec<String> { named(case) }).collect();
    called.extend(LISTS.iter().map(|(operation, ..)| (*operation).to_owned()));
    let declared = operations::declared();
    assert!(declared.len() >= 30, "of {} profiles only {} operations were read", PROFILES.len(), declared.len());
    let missing: Vec<&str> =
        declared.iter().map(|o| o.name.as_str()).filter(|name| !called.iter().any(|c| c == name)).collect();
    assert!(missing.is_empty(), "declared and called by no case of providers/cases.rs: {missing:?}");
    called.iter().for_each(|name| drop(operation(name)));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_profile_is_refused_by_an_api_that_keeps_to_what_it_publishes() {
    let published = CASES.iter().filter(|case| !case.limits.is_empty());
    let runs = published.map(|case| async move {
        let stage = Stage::start(case, case.limits).await;
        stage.run(case, usize::MAX).await;
        stage.was_told(case).await;
        stage.all_arrived(case);
        let arrivals = stage.simulator.arrivals();
        let report = stage.end().await;
        assert_eq!(report.refused, 0, "{}:\n{report}", case.profile);
        for limit in &report.limits {
            assert!(limit.arrivals > 0, "{}: nothing was counted by {}:\n{report}", case.profile, limit.name);
        }
        (case.profile, arrivals, report)
    });
    let ran = futures_util::future::join_all(runs).await;
    for (profile, arrivals, report) in ran {
        match profile {
            // Of the published limits these bind: the jobs take longer than one of their windows.
            "jsonplaceholder" => assert_eq!(report.limit("courtesy").unwrap().max_in_any_window, Some(10)),
            "klaviyo" => assert_eq!(report.limit("update-burst").unwrap().max_in_any_window, Some(75)),
            "stripe" => {
                for limit in ["update", "get", "confirm"] {
                    assert_eq!(report.limit(limit).unwrap().max_in_any_window, Some(25), "{limit}");
                }
            }
            "hubspot" => {
                let batches = arrivals.iter().filter(|a| a.records.len() > 1).count();
                assert!(batches >= 10, "{batches} batches");
            }
            "marketing" => {
                let (batch, single) = (report.limit("batch").unwrap(), report.limit("single").unwrap());
                assert!(batch.arrivals > 0 && single.arrivals > 0, "both lanes: {report}");
            }
            "youtube" => assert_eq!(report.tokens.given, 1, "one token for all: {report:?}"),
            // Four channels, four messages each, a second apart.
            "slack" => {
                for channel in ["c0", "c1", "c2", "c3"] {
                    let of = arrivals.iter().filter(|a| a.records.iter().any(|id| id == channel));
                    let times: Vec<i64> = of.map(|a| a.at_us).collect();
                    let close = times.windows(2).filter(|pair| pair[1] - pair[0] < 1_000_000).count();
                    assert_eq!((times.len(), close), (4, 0), "{channel}: {times:?}");
                }
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_calls_cost_is_used_up_to_the_last_unit_and_no_further() {
    let runs = COSTLY.iter().map(|&(profile, rule, work)| async move {
        let case = CASES.iter().find(|case| case.profile == profile).unwrap();
        // All that is published: where answers tell numbers, they tell those of other limits, so nobody helps to count these.
        let stage = Stage::start(case, case.limits).await;
        let name = rule.split('=').next().unwrap();
        stage.enqueue(profile, work, usize::MAX).await;
        let full = until(PATIENCE, async || {
            let report = stage.simulator.report();
            let limit = report.limit(name).unwrap();
            (report.refused > 0 || limit.max_in_any_window >= Some(limit.max)).then_some(())
        });
        assert!(full.await.is_some(), "{profile}: units were left:\n{}", stage.simulator.report());
        // Whoever counts wrongly has more to send, at once.
        tokio::time::sleep(Duration::from_millis(500)).await;
        stage.all_arrived(&Case { work, ..*case });
        let report = stage.end().await;
        let limit = report.limit(name).unwrap();
        assert_eq!((limit.max_in_any_window, report.refused), (Some(limit.max), 0), "{profile}:\n{report}");
        assert!(limit.arrivals < u64::from(limit.max), "{profile}: nothing cost more than a unit:\n{report}");
    });
    futures_util::future::join_all(runs).await;
}

/// Items of a list that is pulled.
const ITEMS: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn every_list_of_a_profile_is_pulled_whole() {
    let declared = |text: &str| text.matches("\npages ").count();
    let expected: usize = PROFILES.iter().map(|(_, text)| declared(text)).sum();
    assert_eq!(LISTS.len(), expected, "every operation with pages has its list here");
    let runs = LISTS.iter().map(|(operation, list, [items, next, at, size])| async move {
        let shape = Shape {
            items: (*items).to_owned(),
            next: (*next).to_owned(),
            at: (*at).to_owned(),
            size: (*size).to_owned(),
            ..Shape::default()
        };
        // Pages of ten, unless the profile asks for more of them, as it should.
        let rule: ListRule = format!("{list}:{ITEMS}/10").parse().unwrap();
        let lists = vec![ListRule { shape, ..rule }];
        let provider = SimulatorConfig { lists, keep_arrivals: 1_000, ..SimulatorConfig::default() };
        let profile = operation.split('/').next().unwrap();
        let collection = format!("[collections.found]\n[collections.found.pull]\noperation = \"{operation}\"\n");
        let stage = Stage::with(profile, provider, &collection).await;
        let mut records = RecordServiceClient::new(stage.channel.clone());
        let request = pb::PullCollectionRequest { collection: "found".into(), full: false };
        records.pull_collection(request).await.unwrap();
        let over = until(PATIENCE, || {
            let mut records = records.clone();
            async move {
                let request = pb::GetCollectionRequest { name: "found".into() };
                let found = records.get_collection(request).await.unwrap().into_inner().collection?;
                let pull = found.pull?;
                matches!(pull.state(), pb::PullState::Done | pb::PullState::Failed)
                    .then_some((pull, found.record_count))
            }
        });
        let (pull, count) = over.await.unwrap_or_else(|| panic!("{operation}: the pull did not end"));
        assert_eq!((pull.state(), count), (pb::PullState::Done, ITEMS as i64), "{operation}: {pull:?}");
        assert!(self::operation(operation).arrived(&stage.simulator.arrivals()), "{operation}: as it is declared");
        let report = stage.end().await;
        assert!(report.arrivals <= 13, "{operation}: full pages were to be asked for:\n{report}");
    });
    futures_util::future::join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_profile_gets_through_to_an_api_that_refuses_more_than_it_says() {
    let runs = CASES.iter().map(|case| async move {
        // Of the name that it tells its numbers under.
        let limit = format!("{}={STINGY}", case.told.first().map_or("all", |(name, _)| *name));
        let stage = Stage::start(case, &[limit.as_str()]).await;
        stage.run(case, case.stingy).await;
        stage.all_arrived(case);
        stage.has_learned(case).await;
        let report = stage.end().await;
        assert!(report.refused > 0, "{}: it was to be refused:\n{report}", case.profile);
        eprintln!("{}: {} calls, {} refused", case.profile, report.arrivals, report.refused);
    });
    futures_util::future::join_all(runs).await;
}

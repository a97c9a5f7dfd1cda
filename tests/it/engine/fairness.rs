//! Fairness at scale, as the provider sees it: a huge tenant, a stopped account, ten thousand accounts that wait.
//!
//! `TIDEGATE_FAIRNESS_JOBS` is the huge tenant's backlog: 100,000 by default, 1,000,000 in full.

use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::model::job::NewJob;
use tidegate::model::name::Account;
use tidegate::store::Store;

use super::stand::{Reply, Stand, job, of_tenant};
use crate::torture::number;

const FEW_AT_A_TIME: &str = r#"
in_flight_max = 8
[providers.crm.operations.op]
request = "POST /records"
body = "{payload}"
limits = [{ name = "own", max = 1, per = "1h", scope = "account" }]
"#;

const UNLIMITED: &str = r#"
in_flight_max = 8
[providers.crm.operations.op]
request = "POST /records"
body = "{payload}"
"#;

const DELAY: Duration = Duration::from_millis(5);

fn keyless(id: &str) -> NewJob {
    let mut job = job(id);
    job.key = None;
    job
}

fn of_account(id: &str, account: &str) -> NewJob {
    let mut job = keyless(id);
    job.account = Account::new(account).unwrap();
    job
}

/// Virtual time from here until so many requests with such an id have arrived.
async fn until_arrived(stand: &Stand, prefix: &str, count: usize) -> Duration {
    let began = stand.clock.steady();
    loop {
        let arrivals = stand.arrivals();
        let mine: Vec<_> = arrivals.iter().filter(|a| a.ids.iter().any(|id| id.starts_with(prefix))).collect();
        if mine.len() >= count {
            return mine[count - 1].at.since(began);
        }
        assert!(stand.clock.steady().since(began) < Duration::from_secs(600), "{} of {count}", mine.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn paused(stand: &Stand, paused: bool) {
    let crm = tidegate::model::name::ProviderName::new("crm").unwrap();
    stand.engine.pause_provider(&crm, paused, "test").await.unwrap();
}

async fn small_tenants(hog: u64) -> Duration {
    let stand = Stand::new(UNLIMITED, DELAY).await;
    paused(&stand, true).await;
    for from in (0..hog).step_by(4_000) {
        let jobs = (from..(from + 4_000).min(hog)).map(|n| of_tenant(keyless(&format!("hog-{n}")), "hog"));
        stand.enqueue(jobs.collect()).await;
    }
    let small = |n: u32| of_tenant(keyless(&format!("small-{n}")), &format!("tenant-{}", n % 99));
    stand.enqueue((0..990).map(small).collect()).await;
    let tallies = stand.store.tallies().await.unwrap();
    let waiting: u64 = tallies.iter().flat_map(|tally| tally.counts.ready).sum();
    assert_eq!(waiting, hog + 990, "the whole backlog is there");
    paused(&stand, false).await;
    until_arrived(&stand, "small", 990).await
}

#[tokio::test(start_paused = true)]
async fn ninety_nine_small_tenants_hardly_notice_a_huge_one() {
    let (hog, clock) = (number("TIDEGATE_FAIRNESS_JOBS", 100_000), Clock::system());
    let began_at = clock.steady();
    let (alone, beside) = (small_tenants(0).await, small_tenants(hog).await);
    let took = clock.steady().since(began_at);
    eprintln!("990 calls of 99 tenants: {alone:?} alone, {beside:?} beside one of {hog} jobs ({took:?} of real time)");
    assert!(beside <= alone.mul_f64(1.2), "{beside:?} beside a huge tenant, {alone:?} alone");
}

/// Who is stopped while others work.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stopped {
    Nobody,
    /// An account that has used its own limit up.
    Account,
    /// A tenant of 100 accounts that all have.
    Tenant,
    /// A tenant of 100 accounts whose credentials are refused.
    Credentials,
    /// Whoever uses a provider that fails.
    Host,
}

/// What is stopped stays stopped for the time of a test.
const STOPPED: &str = "retry = { attempts = 50, base = \"1s\", cap = \"1s\" }\n\
                       breaker = { open_base = \"2h\", open_max = \"4h\" }\n";

/// Calls of others in ten seconds of virtual time, in which they have more to do than they can.
async fn others(stopped: Stopped) -> usize {
    const FOR: Duration = Duration::from_secs(10);
    let declaration = "auth = { bearer = { env = \"TOKEN_{account}\" } }\n".to_owned()
        + STOPPED
        + UNLIMITED
        + r#"[providers.crm.operations.rare]
request = "POST /rare"
body = "{payload}"
limits = [{ name = "own", max = 1, per = "1h", scope = "account" }]
[providers.crm.operations.refused]
request = "POST /refused"
body = "{payload}"
[providers.down]
base_url = "http://down.invalid"
"# + STOPPED
        + "[providers.down.operations.failing]\nrequest = \"POST /failing\"\nbody = \"{payload}\"\n";
    let stand = Stand::new(&declaration, DELAY).await;
    stand.replies(|a| {
        Reply::Status(if a.line.ends_with("/refused") {
            401
        } else if a.line.ends_with("/failing") {
            500
        } else {
            200
        })
    });
    let rare = |n: usize| {
        let account = if stopped == Stopped::Account { "stopped".to_owned() } else { format!("stopped-{}", n % 100) };
        let mut job = of_tenant(of_account(&format!("rare-{n}"), &account), "stopped");
        let operation = match stopped {
            Stopped::Credentials => "refused",
            Stopped::Host => "failing",
            _ => "rare",
        };
        if stopped == Stopped::Host {
            job.provider = tidegate::model::name::ProviderName::new("down").unwrap();
        }
        job.operation = tidegate::model::name::OperationName::new(operation).unwrap();
        job
    };
    let (jobs, gone) = match stopped {
        Stopped::Nobody => (0, 0),
        Stopped::Account => (5_000, 1),
        Stopped::Tenant => (5_000, 100),
        // After three refusals each, and after five failures.
        Stopped::Credentials => (5_000, 300),
        Stopped::Host => (5_000, 5),
    };
    stand.enqueue((0..jobs).map(rare).collect()).await;
    // What the stopped ones may still send is not what they cost.
    if gone > 0 {
        until_arrived(&stand, "rare", gone).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let from = stand.clock.steady();
    for round in 0..3 {
        let other = |n| of_account(&format!("other-{round}-{n}"), &format!("account-{}", n % 20));
        stand.enqueue((0..4_000).map(other).collect()).await;
    }
    tokio::time::sleep_until(tokio::time::Instant::now() + (from + FOR).since(stand.clock.steady())).await;
    let arrivals = stand.arrivals();
    let within = arrivals.iter().filter(|a| a.at >= from && a.at < from + FOR);
    let (others, rare): (Vec<_>, Vec<_>) = within.partition(|a| a.ids[0].starts_with("other"));
    assert_eq!(rare.len(), 0, "the stopped ones are stopped");
    others.len()
}

#[tokio::test(start_paused = true)]
async fn who_is_stopped_by_an_own_limit_or_an_open_breaker_costs_the_others_nothing() {
    let alone = others(Stopped::Nobody).await;
    for stopped in [Stopped::Account, Stopped::Tenant, Stopped::Credentials, Stopped::Host] {
        let beside = others(stopped).await;
        eprintln!("calls of others in 10 s: {alone} alone, {beside} beside one stopped {stopped:?}");
        assert!(beside as f64 >= alone as f64 * 0.98, "{beside} beside one stopped {stopped:?}, {alone} alone");
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_limited_accounts_wait_without_a_question() {
    const ACCOUNTS: usize = 10_000;
    let stand = Stand::new(FEW_AT_A_TIME, Duration::ZERO).await;
    for round in 0..2 {
        let job = |n| of_account(&format!("job-{n}-{round}"), &format!("account-{n}"));
        stand.enqueue((0..ACCOUNTS).map(job).collect()).await;
    }
    until_arrived(&stand, "job", ACCOUNTS).await;
    // Every account is refused once more, and then knows when to come back.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = stand.limiter.asked();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let asked = stand.limiter.asked() - before;
    assert_eq!(asked, 0, "questions to the limiter while nothing could leave");
    assert_eq!(stand.arrivals().len(), ACCOUNTS);
}

/// Ten thousand accounts that have all they need but a permit of the one limit that they share.
#[tokio::test(start_paused = true)]
async fn ten_thousand_accounts_under_one_full_limit_ask_one_question_for_all() {
    const ACCOUNTS: usize = 10_000;
    let shared =
        |limit: &str| format!("in_flight_max = 64\nlimits = [{limit}]\n{}", &UNLIMITED[UNLIMITED.find('[').unwrap()..]);
    let batches =
        "[providers.crm.operations.op.batch]\nrequest = \"POST /records\"\nbody = \"{payloads}\"\nsize = 10\n";
    let window = shared("{ name = \"all\", max = 10, per = \"1s\" }");
    let clock = Clock::system();
    for (lanes, declaration) in [("one lane", window.clone()), ("two lanes", window.clone() + batches)] {
        let began_at = clock.steady();
        let stand = Stand::new(&declaration, DELAY).await;
        stand.enqueue((0..ACCOUNTS).map(|n| of_account(&format!("job-{n}"), &format!("account-{n}"))).collect()).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (calls, asked) = (stand.arrivals().len(), stand.limiter.asked() as usize);
        tokio::time::sleep(Duration::from_secs(20)).await;
        let (calls, asked) = (stand.arrivals().len() - calls, stand.limiter.asked() as usize - asked);
        let took = clock.steady().since(began_at);
        eprintln!("{lanes}: {asked} questions for {calls} calls of 10,000 accounts ({took:?} of real time)");
        assert!(calls >= 150, "the limit is used: {calls}");
        // One that is granted, and one at most for each answer, that finds nothing; with two lanes a look goes before it.
        assert!(asked <= 5 * calls, "{lanes}: {asked} questions for {calls} calls");
    }
    // What only an answer can free is not asked for before there is one.
    let stand = Stand::new(&shared("{ name = \"wire\", concurrent = 1 }"), Duration::from_secs(1_000)).await;
    stand.enqueue((0..ACCOUNTS).map(|n| of_account(&format!("job-{n}"), &format!("account-{n}"))).collect()).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = stand.limiter.asked();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stand.limiter.asked() - before, 0);
}

//! Whatever waits for a limit goes when it may: refused lanes, behind calls of no flow, and in worlds made by dice.
//!
//! Virtual time, and nothing comes to the help of who was forgotten: no other job, no other call.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate::clock::Timestamp;
use tidegate::model::flow::Class;
use tidegate::model::job::NewJob;
use tidegate::model::name::{Account, OperationName, ProviderName};
use tidegate::model::state::State;

use super::stand::{Arrival, Reply, START, Stand, job, of_tenant};
use crate::torture::number;

const DELAY: Duration = Duration::from_millis(40);

/// Two lanes for `op`, each with limits of its own, and what else the provider declares.
fn two_lanes(provider: &str, single: &str, batch: &str, size: u32) -> String {
    format!(
        "{provider}\n[providers.crm.operations.op]\nrequest = \"PUT /x/{{key}}\"\nbody = \"{{payload}}\"\n{single}\n\
         [providers.crm.operations.op.batch]\nrequest = \"POST /batch\"\nbody = \"{{payloads}}\"\nsize = {size}\n{batch}\n"
    )
}

#[tokio::test(start_paused = true)]
async fn two_lanes_that_were_refused_go_on_when_the_time_is_over() {
    // Of both limits there is plenty; the permits of the refused calls come back in an hour, or at midnight.
    let shared = "limits = [{ name = \"burst\", max = 100, per = \"10s\" },\n\
                  { name = \"daily\", max = 250000, calendar = \"day\", zone = \"UTC\" }]";
    let own = ["limits = [\"3600/h\"]", "limits = [\"50/h\"]"];
    let batches = "[providers.crm.operations.op.batch]\nrequest = \"POST /batch\"\nbody = \"{payloads}\"\nsize = 100\n\
                   limits = [\"50/h\"]\n";
    for (what, declaration) in [
        ("limits of both lanes", two_lanes(shared, "", "", 100)),
        ("limits of each lane", two_lanes("", own[0], own[1], 100)),
        ("batches alone", batches.to_owned()),
    ] {
        for (answer, said) in [("no time", Vec::new()), ("a second", vec![("retry-after", "1".to_owned())])] {
            let stand = Stand::new(&declaration, DELAY).await;
            stand.replies(move |arrival: &Arrival| {
                let early = arrival.at < START + Duration::from_millis(500);
                if early { Reply::Said(429, said.clone()) } else { Reply::Status(200) }
            });
            let ids = stand.enqueue((0..230).map(|n| job(&n.to_string())).collect()).await;
            // Two batches and a rest, for which there may have to be a new credit: every 72 s, with 50 batches an hour.
            let states = stand.settled(&ids, Duration::from_secs(100)).await;
            assert!(states.iter().all(|s| *s == State::Delivered), "{what}, refused with {answer}");
            let early = stand.arrivals().iter().filter(|a| a.at < START + Duration::from_millis(500)).count();
            assert!(early > 0, "{what}: something is refused");
        }
    }
}

fn of(operation: &str, id: &str) -> NewJob {
    let mut job = job(id);
    job.operation = OperationName::new(operation).unwrap();
    job.key = None;
    job
}

const ONE_ON_THE_WIRE: &str = r#"
limits = [{ name = "wire", concurrent = 1 }]
[providers.crm.operations.op]
request = "POST /records"
body = "{payload}"
"#;

fn crm() -> ProviderName {
    ProviderName::new("crm").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_job_waits_for_a_test_call_and_no_longer() {
    let stand = Stand::new(ONE_ON_THE_WIRE, Duration::from_secs(5)).await;
    let engine = stand.engine.clone();
    let test = tokio::spawn(async move { engine.test_provider(&crm(), "/").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ids = stand.enqueue(vec![of("op", "a")]).await;
    assert_eq!(stand.settled(&ids, Duration::from_secs(40)).await, [State::Delivered]);
    test.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_an_operation_that_is_gone_makes_room_all_the_same() {
    let old = ONE_ON_THE_WIRE.to_owned() + "[providers.crm.operations.old]\nrequest = \"POST /old\"\n";
    let stand = Stand::new(&old, Duration::from_secs(5)).await;
    stand.enqueue(vec![of("old", "a")]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let text = format!("[providers.crm]\nbase_url = \"http://crm.invalid\"\n{ONE_ON_THE_WIRE}");
    let declared = tidegate::config::provider::parse(&text, "stand").unwrap().remove(0);
    stand.engine.apply_provider(Arc::new(declared), text, None, "test").await.unwrap();
    let ids = stand.enqueue(vec![of("op", "b")]).await;
    assert_eq!(stand.settled(&ids, Duration::from_secs(40)).await, [State::Delivered]);
}

/// What the provider says is left may all be on the wire: then the gate waits for an answer, or for the reset.
#[tokio::test(start_paused = true)]
async fn two_lanes_ask_nothing_while_all_that_is_said_to_be_left_is_on_the_wire() {
    let shared = "limits = [{ name = \"core\", max = 60, per = \"1m\", headers = \"x-ratelimit\" }]";
    let stand = Stand::new(&two_lanes(shared, "", "", 10), Duration::from_secs(5)).await;
    let reset = (START + Duration::from_secs(300)).0 / 1_000_000;
    let left = Arc::new(AtomicU32::new(3));
    stand.replies(move |_| {
        let left = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(1))).unwrap();
        let left = left.saturating_sub(1);
        Reply::Said(200, vec![("x-ratelimit-remaining", left.to_string()), ("x-ratelimit-reset", reset.to_string())])
    });
    stand.enqueue((0..10).map(|n| job(&n.to_string())).collect()).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    // Two more are left, and as many batches go; the third waits for one of them.
    stand.enqueue((10..40).map(|n| job(&n.to_string())).collect()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = stand.limiter.asked();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let asked = stand.limiter.asked() - before;
    assert_eq!(asked, 0, "questions while nothing could change: {:?}", stand.arrivals());
}

/// Limits of which a world takes some.
const LIMITS: [&str; 9] = [
    "{ name = \"w1\", max = 6, per = \"1s\" }",
    "{ name = \"w2\", max = 9, per = \"2s\", scope = \"account\", reserve = { urgent = 2 } }",
    "{ name = \"wire\", concurrent = 2 }",
    "{ name = \"own\", concurrent = 1, scope = \"account\" }",
    "{ name = \"day\", max = 100000, calendar = \"day\", zone = \"UTC\" }",
    "{ name = \"hour\", max = 5000, per = \"1h\" }",
    "{ name = \"fill\", bucket = 8, refill = \"4/s\" }",
    "{ name = \"points\", max = 12, per = \"2s\", cost = 4 }",
    "{ name = \"even\", max = 4, per = \"1s\", paced = true }",
];

fn some_limits(rng: &mut StdRng, most: usize) -> String {
    let chosen: BTreeSet<usize> = (0..rng.random_range(0..=most)).map(|_| rng.random_range(0..LIMITS.len())).collect();
    let chosen: Vec<&str> = chosen.into_iter().map(|n| LIMITS[n]).collect();
    format!("limits = [{}]", chosen.join(", "))
}

/// One operation of each kind: singles, cheap singles, batches, both.
fn world(rng: &mut StdRng) -> String {
    let mut text = format!("in_flight_max = {}\n{}\n", rng.random_range(1..12), some_limits(rng, 4));
    text += "retry = { attempts = 50, base = \"1s\", cap = \"2s\" }\n";
    for (name, lane) in [("op", "PUT /op/{key}"), ("look", "GET /look/{key}"), ("two", "PUT /two/{key}")] {
        text += &format!("[providers.crm.operations.{name}]\nrequest = \"{lane}\"\nrepeat = \"always\"\n");
        text += if name == "look" { "" } else { "body = \"{payload}\"\n" };
        text += &format!("{}\n", some_limits(rng, 1));
    }
    text += "[providers.crm.operations.many]\nrepeat = \"always\"\n";
    for name in ["two", "many"] {
        let (size, limits) = (rng.random_range(2..8), some_limits(rng, 1));
        text += &format!(
            "[providers.crm.operations.{name}.batch]\nrequest = \"POST /{name}\"\nbody = \"{{payloads}}\"\nsize = {size}\n{limits}\n"
        );
    }
    text
}

/// Until then the provider refuses, loses and is called for a test.
const TROUBLE: Duration = Duration::from_secs(20);
/// The slowest limits let 150 jobs through in 150 s; then comes the longest penalty.
const PATIENCE: Duration = Duration::from_secs(600);

async fn play(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let declaration = world(&mut rng);
    let stand = Stand::new(&declaration, Duration::from_millis(rng.random_range(1..1_500))).await;
    let (dice, refusing, losing) =
        (Mutex::new(StdRng::seed_from_u64(seed + 1)), rng.random_range(0..40), rng.random_range(0..5));
    stand.replies(move |arrival: &Arrival| {
        // A bad record spoils its batch, always.
        if arrival.ids.iter().any(|id| id.ends_with("bad")) {
            return Reply::Status(422);
        }
        let (mut dice, in_trouble) = (dice.lock().unwrap(), arrival.at < START + TROUBLE);
        match dice.random_range(0..100) {
            n if in_trouble && n < refusing => {
                let said = dice.random_bool(0.5).then(|| ("retry-after", dice.random_range(1..4).to_string()));
                Reply::Said(429, said.into_iter().collect())
            }
            n if in_trouble && n >= 100 - losing => Reply::Lost,
            _ => Reply::Status(200),
        }
    });
    let (mut ids, mut n) = (Vec::new(), 0);
    while stand.clock.steady() < START + TROUBLE {
        let burst = (0..rng.random_range(1..25)).map(|_| {
            n += 1;
            let operation = ["op", "look", "two", "two", "many"][rng.random_range(0..5)];
            let bad = if rng.random_bool(0.05) { "bad" } else { "" };
            let mut job = job(&format!("{n}{bad}"));
            job.operation = OperationName::new(operation).unwrap();
            job.account = Account::new(format!("a{}", rng.random_range(0..4))).unwrap();
            job.class = Class::ALL[rng.random_range(0..3)];
            of_tenant(job, ["x", "y", "z"][rng.random_range(0..3)])
        });
        let burst: Vec<NewJob> = burst.collect();
        ids.extend(stand.enqueue(burst).await);
        if rng.random_bool(0.2) {
            let engine = stand.engine.clone();
            // Whether there is room for it does not matter.
            tokio::spawn(async move { drop(engine.test_provider(&crm(), "/look").await) });
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..4_000))).await;
    }
    let end = stand.clock.steady() + PATIENCE;
    loop {
        let states = stand.states(&ids).await;
        let open = states.iter().filter(|s| matches!(s, State::Waiting | State::Calling)).count();
        if open == 0 {
            break;
        }
        let last = stand.arrivals().last().map_or(Timestamp::ZERO, |a| a.at);
        let idle = stand.clock.steady().since(last);
        assert!(
            stand.clock.steady() < end && idle < Duration::from_secs(150),
            "seed {seed}: {open} of {} still wait, nothing has left for {idle:?}:\n{declaration}",
            states.len()
        );
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

/// `TIDEGATE_WAITING_WORLDS` of them, from seed `TIDEGATE_WAITING_SEED` on.
#[tokio::test(start_paused = true)]
async fn whatever_waits_goes_when_it_may_in_worlds_made_by_dice() {
    let (from, worlds) = (number("TIDEGATE_WAITING_SEED", 1), number("TIDEGATE_WAITING_WORLDS", 60));
    for seed in from..from + worlds {
        play(seed).await;
    }
}

/// An API that lets three calls a second through, whatever the profile says: all of a backlog of several batches and a rest
/// is through in the time that its calls take, in however many steps it came back from refusals.
#[tokio::test(start_paused = true)]
async fn a_backlog_that_was_refused_in_parts_is_through_when_its_calls_are() {
    let declaration = two_lanes("", "limits = [\"3600/h\"]", "limits = [\"50/h\"]", 1_000);
    let mut slowest = Duration::ZERO;
    for delay in [1, 5, 17, 40, 90, 230, 600] {
        let stand = Stand::new(&declaration, Duration::from_millis(delay)).await;
        let stamps: Mutex<Vec<Timestamp>> = Mutex::default();
        stand.replies(move |arrival: &Arrival| {
            let mut stamps = stamps.lock().unwrap();
            let second = Duration::from_secs(1);
            stamps.retain(|at| arrival.at.since(*at) < second);
            if stamps.len() >= 3 {
                return Reply::Said(429, vec![("retry-after", "1".to_owned())]);
            }
            stamps.push(arrival.at);
            Reply::Status(200)
        });
        let ids = stand.enqueue((0..5_010).map(|n| job(&n.to_string())).collect()).await;
        let states = stand.settled(&ids, Duration::from_secs(400)).await;
        assert!(states.iter().all(|s| *s == State::Delivered));
        let last = stand.arrivals().last().unwrap().at.since(START);
        eprintln!("delay {delay} ms: {} calls, through after {last:?}", stand.arrivals().len());
        slowest = slowest.max(last);
    }
    assert!(slowest < Duration::from_secs(30), "{slowest:?}");
}

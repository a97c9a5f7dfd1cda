//! After a refusal one call goes first, and more follow as they are answered well: in virtual time, before providers that
//! allow less than was declared. Next: `headers.rs`, `limits/redis.rs` for daemons that share the limiter.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::model::state::State;

use super::headers::{Account, MINUTE, TOLD, run};
use super::stand::{Arrival, Reply, START, Stand, job};

const IN_FLIGHT: usize = 8;
/// One way.
const DELAY: Duration = Duration::from_millis(40);

/// Arrivals that come closer together than a call takes, as one burst each.
fn bursts(arrivals: &[Arrival]) -> Vec<usize> {
    let mut at: Vec<Timestamp> = arrivals.iter().map(|a| a.at).collect();
    at.sort();
    let mut bursts = Vec::new();
    let mut last = Timestamp::ZERO;
    for at in at {
        match bursts.last_mut() {
            Some(burst) if at.since(last) < DELAY => *burst += 1,
            _ => bursts.push(1),
        }
        last = at;
    }
    bursts
}

#[tokio::test(start_paused = true)]
async fn one_call_goes_first_after_each_wait_and_then_twice_as_many_each_time() {
    let declared = format!(
        "in_flight_max = {IN_FLIGHT}\nlimits = [{{ name = \"core\", max = 1000, per = \"1h\" }}]\n\
         [providers.crm.operations.op]\nrequest = \"PUT /x/{{key}}\"\n"
    );
    let stand = Stand::new(&declared, DELAY).await;
    let opens = START + Duration::from_secs(12);
    stand.replies(move |arrival: &Arrival| Reply::Status(if arrival.at < opens { 429 } else { 200 }));
    let ids = stand.enqueue((0..40).map(|n| job(&n.to_string())).collect()).await;
    assert!(stand.settled(&ids, Duration::from_secs(40)).await.iter().all(|s| *s == State::Delivered));
    let arrivals = stand.arrivals();
    let early: Vec<Arrival> = arrivals.iter().filter(|a| a.at < opens).cloned().collect();
    // What was on the wire, and then one after 1, 2, 4 s: before, each of these cost eight.
    assert_eq!(bursts(&early), [IN_FLIGHT, 1, 1, 1]);
    let late: Vec<Arrival> = arrivals.iter().filter(|a| a.at >= opens).cloned().collect();
    assert_eq!(bursts(&late)[..4], [1, 2, 4, 8]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_sinks_below_what_is_in_flight_costs_one_burst_and_is_used_in_full_once_it_is_raised() {
    let account = Account { max: 60, ..Account::default() };
    let (_stand, account): (Stand, Arc<Mutex<Account>>) = run(IN_FLIGHT as u32, TOLD, account, 14).await;
    let wait = |s| tokio::time::sleep(Duration::from_secs(s));
    let set = |max| account.lock().unwrap().max = max;
    wait(124).await;
    set(4);
    wait(300).await;
    let sunk = account.lock().unwrap().refused();
    assert!(sunk <= IN_FLIGHT as u32 + 1, "{sunk} refusals in five windows of a limit of 4 with {IN_FLIGHT} in flight");
    set(60);
    wait(300).await;
    let account = account.lock().unwrap();
    assert_eq!(account.refused(), sunk, "raising it costs none");
    let first = START.0 / MINUTE;
    let ours: Vec<u32> = (0..12).map(|n| account.windows.get(&(first + n)).map_or(0, |w| w.0)).collect();
    assert!(ours[4..7].iter().all(|n| *n == 4), "all of what is left is used: {ours:?}");
    assert!(ours[9..11].iter().all(|n| *n >= 59), "raised in the eighth, used in full two windows later: {ours:?}");
}

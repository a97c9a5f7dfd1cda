//! What a provider says about its limits, from its answer to the next call that leaves: in virtual time, before a provider
//! that counts in windows of a minute, is shared with a stranger, and changes its mind. Next: `stand.rs`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::limiter::{behind, spends};
use tidegate::model::call::{Lane, LimitKey};
use tidegate::model::name::{self, Key};
use tidegate::model::state::State;

use super::stand::{Arrival, Reply, START, Stand, job};

pub const MINUTE: i64 = 60_000_000;

/// A fixed window of a minute, and what was let through and refused in each.
#[derive(Debug, Default)]
pub struct Account {
    pub max: u32,
    /// The stranger takes a call of every minute's allowance this often; 0: there is none.
    pub stranger_every_s: i64,
    /// Windows by number: ours, refused.
    pub windows: std::collections::BTreeMap<i64, (u32, u32)>,
}

impl Account {
    fn answer(&mut self, at: Timestamp) -> Reply {
        let window = at.0.div_euclid(MINUTE);
        let into_s = at.0.rem_euclid(MINUTE) / 1_000_000;
        let taken = if self.stranger_every_s > 0 { (into_s / self.stranger_every_s) as u32 + 1 } else { 0 };
        let (ours, refused) = self.windows.entry(window).or_default();
        let full = *ours + taken >= self.max;
        *ours += u32::from(!full);
        *refused += u32::from(full);
        let left = self.max.saturating_sub(*ours + taken);
        let reset = (window + 1) * MINUTE / 1_000_000;
        said(if full { 429 } else { 200 }, left, reset)
    }

    pub fn refused(&self) -> u32 {
        self.windows.values().map(|w| w.1).sum()
    }
}

fn said(status: u16, left: u32, reset: i64) -> Reply {
    Reply::Said(status, vec![("x-ratelimit-remaining", left.to_string()), ("x-ratelimit-reset", reset.to_string())])
}

fn declaration(in_flight: u32, headers: &str) -> String {
    format!(
        "in_flight_max = {in_flight}\nlimits = [{{ name = \"core\", max = 60, per = \"1m\"{headers} }}]\n\
         throttled = [{{ status = 403, header = {{ x-ratelimit-remaining = \"0\" }} }}]\n\
         [providers.crm.operations.op]\nrequest = \"PUT /x/{{key}}\"\n"
    )
}

pub const TOLD: &str = ", headers = \"x-ratelimit\"";

/// `jobs` calls for so long, before an account. It may be changed meanwhile.
pub async fn run(in_flight: u32, headers: &str, account: Account, minutes: u64) -> (Stand, Arc<Mutex<Account>>) {
    let stand = Stand::new(&declaration(in_flight, headers), Duration::from_millis(40)).await;
    let account = Arc::new(Mutex::new(account));
    let asked = account.clone();
    stand.replies(move |arrival: &Arrival| asked.lock().unwrap().answer(arrival.at));
    stand.enqueue((0..minutes * 70).map(|n| job(&n.to_string())).collect()).await;
    (stand, account)
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_shares_the_account_costs_a_handful_of_refusals() {
    const MINUTES: u64 = 10;
    let refused = async |headers| {
        // 20 of 60 in every minute are the stranger's.
        let account = Account { max: 60, stranger_every_s: 3, ..Account::default() };
        let (_stand, account) = run(8, headers, account, MINUTES).await;
        tokio::time::sleep(Duration::from_secs(60 * MINUTES)).await;
        let account = account.lock().unwrap();
        let ours: u32 = account.windows.values().map(|w| w.0).sum();
        (account.refused(), ours)
    };
    let (blind, _) = refused("").await;
    let (told, ours) = refused(TOLD).await;
    eprintln!(
        "a stranger with a third of the account: {blind} refusals in {MINUTES} minutes without headers, {told} with"
    );
    assert!(told <= 8, "{told} refusals in all: a handful is no more than are on the wire");
    assert!(blind > told, "without headers nothing is learnt: {blind}");
    assert!(ours >= 36 * MINUTES as u32, "what the stranger leaves is to be used: {ours} calls of 40 a minute");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_silently_halved_costs_one_refusal_and_is_used_in_full_once_it_is_raised() {
    let (_stand, account) = run(1, TOLD, Account { max: 60, ..Account::default() }, 12).await;
    let wait = |s| tokio::time::sleep(Duration::from_secs(s));
    let set = |max| account.lock().unwrap().max = max;
    // In the middle of the third minute, when more than half of it is used.
    wait(124).await;
    set(30);
    wait(240).await;
    let halved = account.lock().unwrap().refused();
    assert!(halved <= 1, "{halved} refusals when the limit was halved");
    set(60);
    wait(300).await;
    let account = account.lock().unwrap();
    assert!(account.refused() - halved <= 1, "{account:?}");
    let first = START.0 / MINUTE;
    let ours: Vec<u32> = (0..11).map(|n| account.windows.get(&(first + n)).map_or(0, |w| w.0)).collect();
    assert!(ours[3..6].iter().all(|n| *n == 30), "halved: {ours:?}");
    // Raised within the seventh; two windows later at the latest it is all used again.
    assert!(ours[8..10].iter().all(|n| *n >= 59), "raised again: {ours:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_says_nothing_is_left_waits_until_the_reset_whatever_its_status() {
    let stand = Stand::new(&declaration(1, TOLD), Duration::from_millis(40)).await;
    let reset = START + Duration::from_secs(300);
    stand.replies(move |arrival: &Arrival| {
        if arrival.at < reset { said(403, 0, reset.0 / 1_000_000) } else { said(200, 59, reset.0 / 1_000_000 + 3_600) }
    });
    let ids = stand.enqueue(vec![job("a"), job("b")]).await;
    assert_eq!(stand.settled(&ids, Duration::from_secs(310)).await, [State::Delivered; 2]);
    let early = stand.arrivals().iter().filter(|a| a.at < reset).count();
    assert_eq!(early, 1, "nothing leaves until the reset: {:?}", stand.arrivals());
}

#[tokio::test(start_paused = true)]
async fn what_a_good_answer_says_stops_the_next_call_before_it_is_refused() {
    let stand = Stand::new(&declaration(1, TOLD), Duration::from_millis(40)).await;
    let reset = START + Duration::from_secs(300);
    stand.replies(move |arrival: &Arrival| {
        let left = if arrival.at < reset { 0 } else { 50 };
        said(200, left, if arrival.at < reset { reset.0 / 1_000_000 } else { reset.0 / 1_000_000 + 60 })
    });
    let ids = stand.enqueue(vec![job("a"), job("b")]).await;
    stand.settled(&ids, Duration::from_secs(310)).await;
    let at: Vec<bool> = stand.arrivals().iter().map(|a| a.at < reset).collect();
    assert_eq!(at, [true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_refusals_without_a_time_is_one_step_of_the_penalty() {
    let stand = Stand::new(&declaration(7, ""), Duration::from_millis(40)).await;
    let refused = Arc::new(Mutex::new(0));
    let seen = refused.clone();
    stand.replies(move |_: &Arrival| {
        let mut refused = seen.lock().unwrap();
        *refused += 1;
        Reply::Status(if *refused <= 7 { 429 } else { 200 })
    });
    let ids = stand.enqueue((0..7).map(|n| job(&n.to_string())).collect()).await;
    assert_eq!(stand.settled(&ids, Duration::from_secs(4)).await, [State::Delivered; 7]);
    let mut at: Vec<Timestamp> = stand.arrivals().iter().map(|a| a.at).collect();
    at.sort();
    assert_eq!(at.len(), 14);
    let pause = at[7].since(at[6]);
    assert!(pause >= Duration::from_secs(1), "they wait a second: {pause:?}");
}

#[test]
fn the_limits_behind_a_permit_are_found_again_whatever_they_count_by() {
    let declared = r#"
        [providers.crm]
        base_url = "http://crm.example"
        limits = [
          { name = "core", max = 9, per = "1h" },
          { name = "mine", max = 9, per = "1h", scope = "account" },
          { name = "each", max = 9, per = "1h", scope = "key" },
        ]
        [providers.crm.operations.put]
        request = "PUT /x/{key}"
        limits = [{ name = "lane", max = 9, per = "1h" }]
    "#;
    let crm = tidegate::config::provider::parse(declared, "test").unwrap().remove(0);
    let (account, key) = (name::Account::new("a").unwrap(), Key::new("k").unwrap());
    let operation = crm.operations.values().next().unwrap();
    let spent = spends(&crm, operation, Lane::Single, &account, Some(&key));
    let keys: Vec<(LimitKey, u32)> = spent.iter().map(|s| (s.key.clone(), 1)).collect();
    let names = |account: &name::Account, own| {
        let found = behind(&crm, own, account, &keys);
        let mut names: Vec<String> = found.iter().map(|s| s.limit.name.to_string()).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&account, Some((operation, Lane::Single))), "core each lane mine");
    assert_eq!(names(&name::Account::new("b").unwrap(), None), "core", "only what counts everybody");
}

#[tokio::test(start_paused = true)]
async fn a_call_costs_what_its_answer_says_and_the_journal_knows_it() {
    let declared = |cost: u32, cost_from: &str| {
        format!(
            "limits = [{{ name = \"points\", max = 100, per = \"10m\", cost = {cost}{cost_from} }}]\n\
             [providers.crm.operations.op]\nrequest = \"PUT /x/{{key}}\"\n"
        )
    };
    let arrived = async |declared: String, cost: &'static str| {
        let mut stand = Stand::new(&declared, Duration::from_millis(40)).await;
        stand.replies(move |_: &Arrival| Reply::Said(200, vec![("x-cost", cost.to_owned())]));
        stand.enqueue((0..4).map(|n| job(&n.to_string())).collect()).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let before = stand.arrivals().len();
        stand.restart(Duration::from_secs(1)).await;
        stand.enqueue((4..20).map(|n| job(&n.to_string())).collect()).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        (before, stand.arrivals().len())
    };
    let from = ", cost_from = { header = \"x-cost\" }";
    let told = declared(50, from);
    // Ten points each, and one more leaves while 50 are free. What the first four cost is read from the journal.
    assert_eq!(arrived(told.clone(), "9.5").await, (4, 6));
    assert_eq!(arrived(declared(50, ""), "9.5").await, (2, 2), "as declared");
    assert_eq!(arrived(told, "free").await, (2, 2));
    // Four of 20 points leave one more; when each turns out to have cost 45, all is spent, before a restart and after it.
    assert_eq!(arrived(declared(20, from), "20").await, (4, 5));
    assert_eq!(arrived(declared(20, from), "45").await, (4, 4), "more than was declared counts as well");
}

#[tokio::test(start_paused = true)]
async fn a_cost_beyond_all_that_there_is_takes_all_of_it_and_no_more() {
    let declared = "in_flight_max = 1\nlimits = [{ name = \"points\", bucket = 100, refill = \"10/s\", cost = 20, \
                    cost_from = { header = \"x-cost\" } }]\n\
                    [providers.crm.operations.op]\nrequest = \"PUT /x/{key}\"\n";
    let stand = Stand::new(declared, Duration::from_millis(40)).await;
    stand.replies(|_| Reply::Said(200, vec![("x-cost", "4000000000".to_owned())]));
    let ids = stand.enqueue(vec![job("a"), job("b")]).await;
    assert_eq!(stand.settled(&ids, Duration::from_secs(10)).await, [State::Delivered; 2]);
    let at: Vec<Timestamp> = stand.arrivals().iter().map(|a| a.at).collect();
    let pause = at[1].since(at[0]);
    assert!(
        (Duration::from_millis(1_900)..Duration::from_secs(3)).contains(&pause),
        "20 of 100 refill in 2 s: {pause:?}"
    );
}

//! What a turn costs among many accounts, most of them parked, and among many tenants of one group.
//!
//! Processor time of this thread per turn, as `name value unit` lines: it must not grow with the number of those that
//! have no turn. Must never know: limits.

use std::hint::black_box;
use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::model::flow::Class;
use tidegate::model::id::FlowId;
use tidegate::model::name::Tenant;
use tidegate::plan::fairness::Turns;

const TURNS: usize = 20_000;
const NOW: Timestamp = Timestamp(1_000_000);

fn cpu_ns() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}

fn tenant(n: usize) -> Tenant {
    Tenant::new(n.to_string()).expect("digits are a name")
}

/// Processor time of one of `rounds` rounds.
fn time(rounds: usize, mut round: impl FnMut(usize)) -> f64 {
    // What parked groups wait for is found out at the first turns that meet them: paid by whoever parked them.
    (0..rounds).for_each(&mut round);
    let start = cpu_ns();
    (0..rounds).for_each(&mut round);
    (cpu_ns() - start) / rounds as f64
}

/// One job of the turn's flow leaves, and the commit's report comes in.
fn turn(turns: &mut Turns<usize>) {
    let turn = turns.next(NOW).expect("there is open work");
    for share in turns.share(&turn, Class::Normal, 1) {
        turns.update(share.flow, &turn.tenant, &turn.group, [0, 1_000_000, 0]);
    }
}

/// Accounts of ten tenants; all but ten accounts are parked, and one of the parked comes back now and then.
fn accounts(n: usize) -> f64 {
    let mut turns: Turns<usize> = Turns::default();
    for account in 0..n {
        turns.update(FlowId(account as i64), &tenant(account % 10), &account, [0, 1_000_000, 0]);
        if account >= 10 {
            turns.park(&account, NOW + Duration::from_secs(account as u64));
        }
    }
    time(TURNS, |i| {
        turn(&mut turns);
        let account = i * 7_919 % n;
        if account >= 10 {
            turns.unpark(&account);
            turns.park(&account, NOW + Duration::from_secs(account as u64));
        }
    })
}

/// Tenants of one group, one job each per turn.
fn tenants(n: usize) -> f64 {
    let mut turns: Turns<usize> = Turns::default();
    (0..n).for_each(|i| turns.update(FlowId(i as i64), &tenant(i), &0, [0, 1_000_000, 0]));
    time(TURNS, |_| turn(&mut turns))
}

/// Tenants of one group which gets a permit now and then and is parked again, beside a group that is always open.
fn permits(n: usize) -> f64 {
    let mut turns: Turns<usize> = Turns::default();
    (0..n).for_each(|i| turns.update(FlowId(i as i64), &tenant(i), &0, [0, 1_000_000, 0]));
    turns.update(FlowId(-1), &tenant(n), &1, [0, 1_000_000, 0]);
    time(TURNS, |_| {
        turns.unpark(&0);
        turn(&mut turns);
        turns.park(&0, Timestamp::NEVER);
        turn(&mut turns);
    })
}

/// Batches of 100 records out of the tenants of one group.
fn batches(n: usize) -> f64 {
    let mut turns: Turns<usize> = Turns::default();
    (0..n).for_each(|i| turns.update(FlowId(i as i64), &tenant(i), &0, [0, 1_000_000, 0]));
    let mut round = |_| {
        let shares = turns.fill(&0, 100);
        shares.iter().for_each(|s| {
            turns.update(s.flow, &tenant(usize::try_from(s.flow.0).expect("not negative")), &0, [0, 1_000_000, 0]);
        });
        black_box(shares);
    };
    time(TURNS / 100, &mut round) / 100.0
}

pub fn print() {
    for n in [10, 100, 1_000, 10_000, 100_000] {
        println!("turns.{n}-accounts-parked {:.0} ns", accounts(n));
        println!("turns.{n}-tenants {:.0} ns", tenants(n));
        println!("turns.{n}-tenants-short-of-permits {:.0} ns", permits(n) / 2.0);
        println!("turns.{n}-tenants-batch {:.0} ns/record", batches(n));
    }
}

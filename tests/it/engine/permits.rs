//! Programs outside and the daemon's own jobs at one limit, in virtual time: neither starves, and together they stay within
//! it. Next: `stand.rs`; `grpc/permits.rs` for the same over the wire.

use std::time::Duration;

use http::HeaderMap;
use tidegate::clock::Timestamp;
use tidegate::engine::gate::Lending;
use tidegate::engine::permits::{Seen, Settled, Spending, Wanted};
use tidegate::model::call::Lane;
use tidegate::model::flow::Class;
use tidegate::model::name::{Account, OperationName, ProviderName};

use super::stand::{START, Stand, job};

const DECLARED: &str = "limits = [\"10/s\"]\n[providers.crm.operations.op]\nrequest = \"PUT /x/{key}\"\n";
const MAX: usize = 10;
const SECOND: Duration = Duration::from_secs(1);
const PROGRAMS: usize = 3;
const PERMITS_EACH: usize = 6;
/// One way.
const DELAY: Duration = Duration::from_millis(40);

fn one() -> Wanted {
    Wanted {
        provider: ProviderName::new("crm").unwrap(),
        spending: Spending::Operation(OperationName::new("op").unwrap(), Lane::Single),
        account: Account::default(),
        key: None,
        min: 1,
        max: 1,
        class: Class::Normal,
        wait: Duration::from_secs(20),
        lease: Duration::from_secs(10),
    }
}

/// When the calls of a program arrive that asks for one permit after the other.
async fn program(stand: &Stand) -> Vec<Timestamp> {
    let mut arrivals = Vec::new();
    for _ in 0..PERMITS_EACH {
        let Lending::Granted(loan) = stand.engine.acquire_permits(one()).await.unwrap() else { panic!("none in 20 s") };
        tokio::time::sleep(DELAY).await;
        arrivals.push(stand.clock.steady());
        tokio::time::sleep(DELAY).await;
        let seen = Seen { sent: 1, status: Some(200), headers: HeaderMap::new() };
        assert_eq!(stand.engine.settle_permits(loan.token, seen).await.unwrap(), Settled::Now);
    }
    arrivals
}

#[tokio::test(start_paused = true)]
async fn neither_programs_nor_jobs_starve_and_together_they_stay_within_the_limit() {
    let stand = Stand::new(DECLARED, DELAY).await;
    stand.enqueue((0..120).map(|n| job(&n.to_string())).collect()).await;
    let programs = futures_util::future::join_all((0..PROGRAMS).map(|_| program(&stand))).await;
    let by_programs: Vec<Timestamp> = programs.into_iter().flatten().collect();
    let last = *by_programs.iter().max().unwrap();
    let by_jobs: Vec<Timestamp> = stand.arrivals().iter().map(|a| a.at).filter(|at| *at <= last).collect();
    // A program asks for its next permit when it has used one, so each has one per window; the jobs have the rest.
    let windows = last.since(START).as_millis().div_ceil(1_080) as usize;
    assert!(
        windows <= PERMITS_EACH + 1,
        "{PROGRAMS} programs waited {windows} windows for {PERMITS_EACH} permits each"
    );
    assert!(by_jobs.len() >= (windows - 2) * (MAX - PROGRAMS), "{} jobs left in {windows} windows", by_jobs.len());
    let mut all: Vec<Timestamp> = by_jobs.iter().chain(&by_programs).copied().collect();
    all.sort();
    let most = all.iter().map(|from| all.iter().filter(|at| *from <= **at && **at < *from + SECOND).count()).max();
    assert_eq!(most, Some(MAX), "the limit is used in full, and never more than that");
}

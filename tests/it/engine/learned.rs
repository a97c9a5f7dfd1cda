//! Limits that nobody publishes, learned from refusals: in virtual time, before a provider that tells nothing. Next: `stand.rs`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::engine::status::ProviderStatus;
use tidegate::model::name::ProviderName;

use super::stand::{Arrival, Reply, Stand, job};

/// What the provider allows in any ten seconds, and says nothing of.
const OWN: usize = 30;
const WINDOW: Duration = Duration::from_secs(10);
const IN_FLIGHT: usize = 4;

/// Lets `OWN` calls through in any ten seconds.
#[derive(Debug, Default)]
struct Silent {
    let_through: VecDeque<Timestamp>,
    taken: usize,
    refused: usize,
    /// Headers of a refusal.
    says: Vec<(&'static str, String)>,
}

impl Silent {
    fn answer(&mut self, at: Timestamp) -> Reply {
        while self.let_through.front().is_some_and(|first| *first + WINDOW <= at) {
            self.let_through.pop_front();
        }
        if self.let_through.len() >= OWN {
            self.refused += 1;
            return Reply::Said(429, self.says.clone());
        }
        self.let_through.push_back(at);
        self.taken += 1;
        Reply::Status(200)
    }
}

async fn stand(more: &str, jobs: usize) -> (Stand, Arc<Mutex<Silent>>) {
    let declaration = format!(
        "in_flight_max = {IN_FLIGHT}\nlimits = [{{ name = \"app\", max = 200, per = \"10s\"{more} }}]\n\
         [providers.crm.operations.op]\nrequest = \"PUT /x/{{key}}\"\n"
    );
    let stand = Stand::new(&declaration, Duration::from_millis(40)).await;
    let silent = Arc::new(Mutex::new(Silent::default()));
    let asked = silent.clone();
    stand.replies(move |arrival: &Arrival| asked.lock().unwrap().answer(arrival.at));
    stand.enqueue((0..jobs).map(|n| job(&n.to_string())).collect()).await;
    (stand, silent)
}

async fn status(stand: &Stand) -> ProviderStatus {
    stand.engine.provider_status(&ProviderName::new("crm").unwrap()).await.unwrap()
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Calls that were let through and refused since then.
fn since(silent: &Mutex<Silent>, before: (usize, usize)) -> (usize, usize) {
    let silent = silent.lock().unwrap();
    (silent.taken - before.0, silent.refused - before.1)
}

#[tokio::test(start_paused = true)]
async fn an_undeclared_limit_is_found_with_few_refusals_mostly_used_and_remembered() {
    let (mut stand, silent) = stand(", learned = true", 6_000).await;
    pass(120).await;
    let (_, finding) = since(&silent, (0, 0));
    // 200, 140, 98, 68, 48, 34, 24: six steps, each of no more calls than are on the wire.
    assert!((1..=7 * IN_FLIGHT).contains(&finding), "{finding} refusals to find it");
    let found = since(&silent, (0, 0));
    pass(600).await;
    let (taken, refused) = since(&silent, found);
    let share = taken as f64 / (60 * OWN) as f64;
    eprintln!(
        "an undeclared 30 per 10 s: {finding} refusals to find it, then {refused} in ten minutes, {share:.2} used"
    );
    assert!(share >= 0.7, "{taken} calls of {} were made", 60 * OWN);
    assert!(refused <= 3 * IN_FLIGHT, "{refused} refusals in ten minutes after it was found");
    let before = since(&silent, (0, 0));
    stand.restart(Duration::from_secs(20)).await;
    pass(60).await;
    let (taken, refused) = since(&silent, before);
    assert!(refused <= IN_FLIGHT, "{refused} refusals after a restart: it is remembered");
    assert!(taken >= 5 * OWN * 7 / 10, "{taken} calls after a restart");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_declared_as_learned_is_run_into_for_ever() {
    let (_stand, silent) = stand("", 6_000).await;
    pass(720).await;
    let (_, refused) = since(&silent, (0, 0));
    assert!(refused > 100, "{refused}: else the other tests show nothing");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_tells_a_number_teaches_nothing() {
    let (stand, silent) = stand(", learned = true, headers = \"x-ratelimit\"", 600).await;
    silent.lock().unwrap().says = vec![("x-ratelimit-remaining", "0".to_owned())];
    pass(30).await;
    assert!(since(&silent, (0, 0)).1 > 0, "it was to be refused");
    let shown = status(&stand).await;
    assert_eq!((shown.limits[0].refused_at_max, shown.limits[0].view.max), (None, 200), "{shown:?}");
    silent.lock().unwrap().says = Vec::new();
    pass(30).await;
    let shown = status(&stand).await;
    let (refused_at, max) = (shown.limits[0].refused_at_max, shown.limits[0].view.max);
    assert!(refused_at.is_some_and(|at| at <= 200) && max <= 140, "one that tells none does: {shown:?}");
}

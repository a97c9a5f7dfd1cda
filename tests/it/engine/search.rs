//! Bad records in batches that are refused as a whole: only they are refused, and the quota is kept for others.

use std::time::Duration;

use tidegate::model::state::State;

use super::stand::{Reply, Stand, job};

const BATCHES: &str = r#"
[providers.crm.operations.op]
repeat = "always"
[providers.crm.operations.op.batch]
request = "POST /batch"
body = "{payloads}"
size = 64
limits = ["60/h"]
"#;

const BOTH: &str = r#"
[providers.crm.operations.op]
repeat = "always"
request = "PUT /records/{key}"
body = "{payload}"
limits = ["600/h"]
[providers.crm.operations.op.batch]
request = "POST /batch"
body = "{payloads}"
size = 64
limits = ["60/h"]
"#;

/// A job per record; a request with a bad one in it is refused as a whole.
async fn send(declaration: &str, records: usize, bad: impl Fn(usize) -> bool + Send + Clone + 'static) -> Stand {
    let stand = Stand::new(declaration, Duration::from_millis(10)).await;
    let is_bad = bad.clone();
    stand.replies(move |a| {
        let refused = a.ids.iter().any(|id| is_bad(id[1..].parse().unwrap()));
        Reply::Status(if refused { 422 } else { 200 })
    });
    let ids = stand.enqueue((0..records).map(|n| job(&format!("r{n}"))).collect()).await;
    let states = stand.settled(&ids, Duration::from_secs(100_000)).await;
    for (n, state) in states.into_iter().enumerate() {
        assert_eq!(state, if bad(n) { State::Dead } else { State::Delivered }, "record {n}");
    }
    stand
}

#[tokio::test(start_paused = true)]
async fn one_bad_record_is_found_within_credits_and_alone_refused() {
    let stand = send(BATCHES, 64, |n| n == 37).await;
    let arrivals = stand.arrivals();
    assert!(arrivals.len() <= 13, "{} calls", arrivals.len());
    // Four credits are in hand; what follows comes at the pace that can be kept up.
    let spread = arrivals.last().unwrap().at.since(arrivals[0].at);
    assert!(spread >= Duration::from_secs(60) * (arrivals.len() as u32 - 6), "{} calls in {spread:?}", arrivals.len());
}

#[tokio::test(start_paused = true)]
async fn when_most_of_a_batch_is_bad_the_good_ones_are_still_delivered() {
    let stand = send(BATCHES, 64, |n| n % 9 != 0).await;
    assert!(stand.arrivals().len() < 128, "{} calls", stand.arrivals().len());
}

#[tokio::test(start_paused = true)]
async fn when_all_seem_to_be_bad_the_single_lane_asks_for_each_by_itself() {
    let stand = send(BOTH, 64, |n| n != 50).await;
    let batches = stand.arrivals().iter().filter(|a| a.line == "POST /batch").count();
    assert!(batches <= 20, "{batches} batches for a batch of bad records");
    assert!(stand.arrivals().len() <= 64 + 20, "{} calls", stand.arrivals().len());
}

//! The way of one job through a store.

use super::factory::{Bench, job, memory};
use tidegate::model::flow::Class;
use tidegate::model::state::State;
use tidegate::store::Next;

async fn a_job_walks_from_enqueue_to_delivered(bench: Bench) {
    let id = bench.add(job("{}")).await;
    let flow = bench.job(id).await.flow;
    let calls = bench.begin(bench.take(flow, Class::Normal, 1)).await;
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].jobs[0].id, calls[0].jobs[0].attempts), (id, 1));
    assert_eq!(bench.state(id).await, State::Calling);
    let done = bench.finish(bench.end(calls[0].id, vec![(id.seq, Next::Delivered)])).await;
    assert!(done.applied && done.stale.is_empty());
    assert_eq!(bench.state(id).await, State::Delivered);
    assert_eq!(bench.counts(flow).await.delivered, 1);
}

#[tokio::test]
async fn a_job_walks_from_enqueue_to_delivered_in_memory() {
    a_job_walks_from_enqueue_to_delivered(memory()).await;
}

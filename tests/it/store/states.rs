//! Every store accepts exactly what the transition table accepts.

use std::time::Duration;

use tidegate::model::flow::Class;
use tidegate::model::id::{CallId, JobId};
use tidegate::model::job::{Coalesce, NewJob};
use tidegate::model::state::{Event, State};
use tidegate::store::*;

use super::factory::{Bench, keyed};

suite!(
    every_event_in_every_state_is_taken_or_refused_as_the_table_says,
    a_job_called_off_on_the_wire_is_not_tried_again,
    a_job_called_off_on_the_wire_may_still_be_delivered,
    attempts_count_what_was_sent_and_not_throttled,
);

/// A job of its own key in the wanted state.
async fn job_in(bench: &Bench, state: State, key: &str) -> JobId {
    let id = bench.add(keyed(key, "{}")).await;
    let next = match state {
        State::Waiting => return id,
        State::Cancelled => {
            bench.change(Change::CancelJobs { jobs: vec![id] }).await.unwrap();
            return id;
        }
        State::Calling => None,
        State::Delivered => Some(Next::Delivered),
        State::Dead => Some(Next::Dead),
        State::Unknown => Some(Next::Unknown),
    };
    let call = bench.claim(id).await;
    if let Some(next) = next {
        bench.finish(bench.end(call, vec![(id.seq, next)])).await;
    }
    assert_eq!(bench.state(id).await, state);
    id
}

/// Makes the event happen; true when the store took it.
async fn happen(bench: &Bench, id: JobId, event: Event, key: &str) -> bool {
    let retry = |why| Next::Wait { due_at: bench.now + Duration::from_secs(9), why };
    let decided = |decision| Change::ResolveJobs { jobs: vec![id], decision };
    match event {
        Event::Begin => {
            let flow = bench.job(id).await.flow;
            let calls = bench.begin(bench.take(flow, Class::Normal, 1_000)).await;
            calls.iter().any(|call| call.jobs[0].id == id)
        }
        Event::Deliver => bench.ends_as(id, Next::Delivered).await,
        Event::Retry => bench.ends_as(id, retry(Again::Retry)).await,
        Event::Throttle => bench.ends_as(id, retry(Again::Throttled)).await,
        Event::Die => bench.ends_as(id, Next::Dead).await,
        Event::Lose => bench.ends_as(id, Next::Unknown).await,
        Event::Cancel => bench.one(Change::CancelJobs { jobs: vec![id] }).await,
        Event::Coalesce => {
            let newer = NewJob { coalesce: Coalesce::Replace, ..keyed(key, "{\"new\":1}") };
            bench.enqueue(vec![newer]).await[0].as_ref().unwrap().how == Accepted::Coalesced
        }
        Event::Edit => bench.one(Change::EditJob { job: id, payload: None, class: None, due_at: None }).await,
        Event::Revive => bench.one(Change::ReviveJobs { jobs: vec![id], fresh: false }).await,
        Event::ResolveDelivered => bench.one(decided(Decision::Delivered)).await,
        Event::ResolveAgain => bench.one(decided(Decision::Again)).await,
        Event::ResolveDead => bench.one(decided(Decision::Dead)).await,
    }
}

impl Bench {
    /// Begins everything up to this job and returns its call.
    pub async fn claim(&self, id: JobId) -> CallId {
        let flow = self.job(id).await.flow;
        let calls = self.begin(self.take(flow, self.job(id).await.class, 1_000)).await;
        calls.iter().find(|call| call.jobs[0].id == id).expect("the job was ready").id
    }

    /// Reports an outcome under the job's call, or under a call that never was.
    async fn ends_as(&self, id: JobId, next: Next) -> bool {
        let job = self.job(id).await;
        let call = if job.state == State::Calling { *job.calls.last().unwrap() } else { CallId(1_000_000) };
        self.finish(self.end(call, vec![(id.seq, next)])).await.stale.is_empty()
    }

    /// True when a change of one job was taken.
    pub async fn one(&self, change: Change) -> bool {
        match self.change(change).await.unwrap() {
            Changed::Jobs(results) => results[0].is_ok(),
            other => panic!("expected jobs, got {other:?}"),
        }
    }
}

async fn every_event_in_every_state_is_taken_or_refused_as_the_table_says(bench: Bench) {
    for state in State::ALL {
        for event in Event::ALL {
            let key = format!("{state}-{}", event.name());
            let id = job_in(&bench, state, &key).await;
            let taken = happen(&bench, id, event, &key).await;
            let after = bench.job(id).await;
            assert_eq!(taken, state.on(event).is_some(), "{state} {event:?}");
            let expected = match (state, event) {
                // Marked, and cancelled when its call ends without delivery.
                (State::Calling, Event::Cancel) => State::Calling,
                _ => state.on(event).unwrap_or(state),
            };
            assert_eq!(after.state, expected, "{state} {event:?}");
        }
    }
}

async fn a_job_called_off_on_the_wire_is_not_tried_again(bench: Bench) {
    let id = bench.add(keyed("a", "{}")).await;
    let call = bench.claim(id).await;
    assert!(bench.one(Change::CancelJobs { jobs: vec![id] }).await);
    assert!(bench.job(id).await.cancel_requested);
    let wait = Next::Wait { due_at: bench.now, why: Again::Retry };
    bench.finish(bench.end(call, vec![(id.seq, wait)])).await;
    assert_eq!(bench.state(id).await, State::Cancelled);
}

async fn a_job_called_off_on_the_wire_may_still_be_delivered(bench: Bench) {
    let id = bench.add(keyed("a", "{}")).await;
    let call = bench.claim(id).await;
    bench.change(Change::CancelJobs { jobs: vec![id] }).await.unwrap();
    bench.finish(bench.end(call, vec![(id.seq, Next::Delivered)])).await;
    assert_eq!(bench.state(id).await, State::Delivered);
}

async fn attempts_count_what_was_sent_and_not_throttled(bench: Bench) {
    let id = bench.add(keyed("a", "{}")).await;
    let mut seen = Vec::new();
    for why in [Again::Retry, Again::Throttled, Again::NotSent, Again::Crashed] {
        let call = bench.claim(id).await;
        bench.finish(bench.end(call, vec![(id.seq, Next::Wait { due_at: bench.now, why })])).await;
        let job = bench.job(id).await;
        seen.push((job.attempts, job.throttles, job.crashes));
    }
    assert_eq!(seen, [(1, 0, 0), (1, 1, 0), (1, 1, 0), (2, 1, 1)]);
    assert_eq!(bench.job(id).await.calls.len(), 4);
}

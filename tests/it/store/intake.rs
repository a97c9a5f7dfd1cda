//! Enqueue: identity, due times, pages, retention.

use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::model::filter::Filter;
use tidegate::model::flow::{Class, Place};
use tidegate::model::id::JobId;
use tidegate::model::job::NewJob;
use tidegate::model::name::{IdempotencyKey, Tenant};
use tidegate::model::state::State;
use tidegate::store::*;

use super::factory::{Bench, job, keyed};

suite!(
    an_id_with_another_time_finds_nothing,
    a_repeated_enqueue_is_answered_with_the_first_job,
    a_repeat_within_a_batch_is_one_job,
    an_idempotency_key_goes_with_its_job,
    jobs_become_ready_when_they_are_due,
    an_expedited_job_is_due_now,
    an_edit_changes_what_waits,
    pages_go_through_all_jobs_once,
    old_final_jobs_are_pruned_and_dead_ones_kept_longer,
    numbers_are_not_used_again_after_pruning,
    a_bad_job_leaves_the_good_ones_of_its_batch_alone,
);

fn once(name: &str, payload: &str) -> NewJob {
    NewJob { idempotency_key: Some(IdempotencyKey::new(name).unwrap()), ..job(payload) }
}

fn prune(before: Timestamp, dead_before: Timestamp) -> Change {
    Change::Prune {
        finished_before: before,
        dead_before,
        calls_before: Timestamp::ZERO,
        events_before: Timestamp::ZERO,
        limit: 100,
    }
}

async fn an_id_with_another_time_finds_nothing(bench: Bench) {
    let id = bench.add(job("1")).await;
    let other = JobId::new(Timestamp(id.created_at.0 + 1), id.seq);
    assert_eq!(bench.store.job(other).await.unwrap(), None);
    let refused = bench.change(Change::CancelJobs { jobs: vec![other, id] }).await.unwrap();
    let Changed::Jobs(results) = refused else { panic!("expected jobs") };
    assert_eq!(results[0], Err(Refusal::NoJob(other)));
    assert!(results[1].is_ok());
}

async fn a_repeated_enqueue_is_answered_with_the_first_job(bench: Bench) {
    let first = bench.add(once("x", "1")).await;
    let again = bench.enqueue(vec![once("x", "1")]).await.remove(0).unwrap();
    assert_eq!(again, Enqueued { id: first, how: Accepted::Repeated });
    // Another due time or trace is the same content.
    let later = NewJob { due_at: Some(bench.now + Duration::from_secs(1)), ..once("x", "1") };
    assert_eq!(bench.add(later).await, first);
    assert_eq!(bench.enqueue(vec![once("x", "2")]).await.remove(0), Err(Refusal::KeyReused { first }));
    let other = NewJob { tenant: Tenant::new("other").unwrap(), ..once("x", "2") };
    assert_eq!(bench.enqueue(vec![other]).await.remove(0).unwrap().how, Accepted::Created);
}

async fn a_repeat_within_a_batch_is_one_job(bench: Bench) {
    let done = bench.enqueue(vec![once("x", "1"), once("x", "1"), once("x", "2")]).await;
    let first = done[0].as_ref().unwrap().id;
    assert_eq!(done[1], Ok(Enqueued { id: first, how: Accepted::Repeated }));
    assert_eq!(done[2], Err(Refusal::KeyReused { first }));
}

async fn an_idempotency_key_goes_with_its_job(bench: Bench) {
    let first = bench.add(once("x", "1")).await;
    let call = bench.claim(first).await;
    bench.finish(bench.end(call, vec![(first.seq, Next::Delivered)])).await;
    assert_eq!(bench.add(once("x", "1")).await, first);
    let after = Timestamp(bench.now.0 + 1);
    bench.store.commit(Batch { changes: vec![prune(after, after)], ..bench.batch() }).await.unwrap();
    let done = bench.store.commit(Batch { enqueues: vec![once("x", "2")], ..bench.batch() }).await.unwrap();
    assert_eq!(done.enqueues[0].as_ref().unwrap().how, Accepted::Created);
}

async fn jobs_become_ready_when_they_are_due(mut bench: Bench) {
    let due = |s: u64| NewJob { due_at: Some(bench.now + Duration::from_secs(s)), ..job("1") };
    let jobs = vec![due(3), due(1), due(2)];
    let done = bench.commit(Batch { enqueues: jobs, ..bench.batch() }).await;
    let ids: Vec<JobId> = done.enqueues.into_iter().map(|e| e.unwrap().id).collect();
    assert_eq!(done.next_due, bench.now + Duration::from_secs(1));
    assert_eq!(bench.change(Change::PromoteDue { limit: 9 }).await.unwrap(), Changed::Count(0));
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.change(Change::PromoteDue { limit: 1 }).await.unwrap(), Changed::Count(1));
    assert_eq!(bench.job(ids[1]).await.place, Place::Ready);
    assert_eq!(bench.change(Change::PromoteDue { limit: 9 }).await.unwrap(), Changed::Count(1));
    assert_eq!(bench.job(ids[0]).await.place, Place::Later);
}

async fn an_expedited_job_is_due_now(bench: Bench) {
    let id = bench.add(NewJob { due_at: Some(bench.now + Duration::from_secs(60)), ..job("1") }).await;
    assert!(bench.one(Change::ExpediteJobs { jobs: vec![id] }).await);
    assert_eq!((bench.job(id).await.place, bench.job(id).await.due_at), (Place::Ready, bench.now));
}

async fn an_edit_changes_what_waits(bench: Bench) {
    let first = bench.add(keyed("a", "1")).await;
    let second = bench.add(keyed("a", "2")).await;
    let due_at = Some(bench.now + Duration::from_secs(60));
    for id in [first, second] {
        let edit = Change::EditJob { job: id, payload: Some("7".into()), class: Some(Class::Bulk), due_at };
        assert!(bench.one(edit).await);
    }
    let job = bench.job(first).await;
    assert_eq!((&*job.payload, job.version, job.class, job.place), ("7", 2, Class::Bulk, Place::Later));
    assert_eq!(bench.job(second).await.place, Place::Behind);
    bench.change(Change::CancelJobs { jobs: vec![first] }).await.unwrap();
    assert_eq!(bench.job(second).await.place, Place::Later);
}

async fn pages_go_through_all_jobs_once(bench: Bench) {
    bench.enqueue((0..25).map(|n| job(&n.to_string())).collect()).await;
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = bench.store.list_jobs(&Filter::everything(), before, 10).await.unwrap();
        assert!(page.jobs.len() <= 10);
        seen.extend(page.jobs.iter().map(|job| job.id.seq));
        match page.next {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, (1..=25).rev().collect::<Vec<_>>());
    let jobs = bench.store.jobs(&[3, 99, 1]).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.id.seq).collect::<Vec<_>>(), [3, 1]);
}

async fn old_final_jobs_are_pruned_and_dead_ones_kept_longer(mut bench: Bench) {
    let ids = [bench.add(job("1")).await, bench.add(job("2")).await, bench.add(job("3")).await];
    let flow = bench.job(ids[0]).await.flow;
    let calls = bench.begin(bench.take(flow, Class::Normal, 2)).await;
    bench.finish(bench.end(calls[0].id, vec![(ids[0].seq, Next::Delivered)])).await;
    bench.finish(bench.end(calls[1].id, vec![(ids[1].seq, Next::Dead)])).await;
    let before = bench.counts(flow).await;
    bench.pass(Duration::from_secs(10));
    let change = prune(bench.now, bench.now - Duration::from_secs(60));
    let done = bench.store.commit(Batch { changes: vec![change], ..bench.batch() }).await.unwrap();
    assert_eq!(done.changes[0], Ok(Changed::Count(1)));
    assert_eq!(bench.store.job(ids[0]).await.unwrap(), None);
    assert_eq!((bench.state(ids[1]).await, bench.state(ids[2]).await), (State::Dead, State::Waiting));
    // What was counted stays counted.
    assert_eq!(bench.counts(flow).await, before);
}

async fn numbers_are_not_used_again_after_pruning(bench: Bench) {
    let id = bench.add(job("1")).await;
    bench.change(Change::CancelJobs { jobs: vec![id] }).await.unwrap();
    let after = Timestamp(bench.now.0 + 1);
    bench.store.commit(Batch { changes: vec![prune(after, after)], ..bench.batch() }).await.unwrap();
    let done = bench.store.commit(Batch { enqueues: vec![job("2")], ..bench.batch() }).await.unwrap();
    assert!(done.enqueues[0].as_ref().unwrap().id.seq > id.seq);
}

async fn a_bad_job_leaves_the_good_ones_of_its_batch_alone(bench: Bench) {
    let nowhere = JobId::new(bench.now, 77);
    let done = bench.enqueue(vec![job("1"), NewJob { run: Some(nowhere), ..job("2") }, job("3")]).await;
    assert!(done[0].is_ok() && done[2].is_ok());
    assert_eq!(done[1], Err(Refusal::NoRun(nowhere)));
}

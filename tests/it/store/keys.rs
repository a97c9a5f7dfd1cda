//! The order of a key, and what waiting jobs of a key become.

use std::time::Duration;

use tidegate::model::flow::{Class, Place};
use tidegate::model::job::{Coalesce, NewJob};
use tidegate::model::name::OperationName;
use tidegate::model::state::State;
use tidegate::store::*;

use super::factory::{Bench, keyed};

suite!(
    later_jobs_of_a_key_stand_behind_until_the_first_is_final,
    a_key_keeps_its_order_across_operations,
    an_unknown_job_keeps_its_key_blocked,
    a_retry_stays_first_of_its_key,
    the_newest_waiting_change_wins,
    jobs_of_one_batch_coalesce_among_themselves,
    merge_patches_are_merged,
    nothing_coalesces_into_a_job_on_the_wire,
    nothing_coalesces_across_operations,
    a_tried_job_keeps_its_backoff_when_it_takes_a_change_in,
    a_revived_job_goes_to_the_end_of_its_key,
    a_resolved_job_is_still_first_of_its_key,
    a_key_keeps_its_order_when_its_account_is_spread_otherwise,
    a_change_joins_a_waiting_one_of_another_part,
);

fn newer(key: &str, payload: &str) -> NewJob {
    NewJob { coalesce: Coalesce::Replace, ..keyed(key, payload) }
}

async fn later_jobs_of_a_key_stand_behind_until_the_first_is_final(bench: Bench) {
    let first = bench.add(keyed("a", "1")).await;
    let second = bench.add(keyed("a", "2")).await;
    let third = bench.add(keyed("a", "3")).await;
    for id in [second, third] {
        let job = bench.job(id).await;
        assert_eq!(job.place, Place::Behind);
        assert_eq!(bench.store.blocker(&job).await.unwrap().unwrap().id, first);
    }
    let call = bench.claim(first).await;
    assert_eq!(bench.job(second).await.place, Place::Behind);
    bench.finish(bench.end(call, vec![(first.seq, Next::Dead)])).await;
    assert_eq!(bench.job(second).await.place, Place::Ready);
    assert_eq!(bench.job(third).await.place, Place::Behind);
    bench.change(Change::CancelJobs { jobs: vec![second] }).await.unwrap();
    assert_eq!(bench.job(third).await.place, Place::Ready);
    assert_eq!(bench.store.blocker(&bench.job(third).await).await.unwrap(), None);
}

async fn a_key_keeps_its_order_across_operations(bench: Bench) {
    let first = bench.add(keyed("a", "1")).await;
    let erase = OperationName::new("erase").unwrap();
    let second = bench.add(NewJob { operation: erase, ..keyed("a", "2") }).await;
    assert_eq!(bench.job(second).await.place, Place::Behind);
    let call = bench.claim(first).await;
    bench.finish(bench.end(call, vec![(first.seq, Next::Delivered)])).await;
    assert_eq!(bench.job(second).await.place, Place::Ready);
}

async fn an_unknown_job_keeps_its_key_blocked(bench: Bench) {
    let first = bench.add(keyed("a", "1")).await;
    let second = bench.add(keyed("a", "2")).await;
    let call = bench.claim(first).await;
    bench.finish(bench.end(call, vec![(first.seq, Next::Unknown)])).await;
    assert_eq!(bench.job(second).await.place, Place::Behind);
    bench.change(Change::ResolveJobs { jobs: vec![first], decision: Decision::Delivered }).await.unwrap();
    assert_eq!(bench.job(second).await.place, Place::Ready);
}

async fn a_retry_stays_first_of_its_key(bench: Bench) {
    let first = bench.add(keyed("a", "1")).await;
    let second = bench.add(keyed("a", "2")).await;
    let call = bench.claim(first).await;
    let wait = Next::Wait { due_at: bench.now + Duration::from_secs(5), why: Again::Retry };
    bench.finish(bench.end(call, vec![(first.seq, wait)])).await;
    assert_eq!(bench.job(first).await.place, Place::Later);
    assert_eq!(bench.job(second).await.place, Place::Behind);
}

async fn the_newest_waiting_change_wins(bench: Bench) {
    let first = bench.add(keyed("a", "1")).await;
    let urgent = NewJob { class: Class::Urgent, ..newer("a", "2") };
    let again = bench.enqueue(vec![urgent]).await.remove(0).unwrap();
    assert_eq!(again, Enqueued { id: first, how: Accepted::Coalesced });
    let job = bench.job(first).await;
    assert_eq!((&*job.payload, job.version, job.class), ("2", 2, Class::Urgent));
    // A less urgent change does not slow the job down.
    bench.add(NewJob { class: Class::Bulk, ..newer("a", "3") }).await;
    assert_eq!(bench.job(first).await.class, Class::Urgent);
}

async fn jobs_of_one_batch_coalesce_among_themselves(bench: Bench) {
    let jobs = vec![newer("a", "1"), newer("a", "2"), newer("b", "1"), newer("a", "3")];
    let done: Vec<Enqueued> = bench.enqueue(jobs).await.into_iter().map(Result::unwrap).collect();
    assert_eq!([done[1].how, done[3].how], [Accepted::Coalesced; 2]);
    assert_eq!([done[1].id, done[3].id], [done[0].id; 2]);
    let job = bench.job(done[0].id).await;
    assert_eq!((&*job.payload, job.version), ("3", 3));
}

async fn merge_patches_are_merged(bench: Bench) {
    let merge = |payload: &str| NewJob { coalesce: Coalesce::Merge, ..keyed("a", payload) };
    let id = bench.add(merge("{\"name\":\"Ada\",\"age\":1}")).await;
    bench.enqueue(vec![merge("{\"age\":2}"), merge("{\"name\":null,\"city\":\"Bern\"}")]).await;
    let job = bench.job(id).await;
    assert_eq!((&*job.payload, job.version), ("{\"age\":2,\"city\":\"Bern\"}", 3));
}

async fn nothing_coalesces_into_a_job_on_the_wire(bench: Bench) {
    let first = bench.add(newer("a", "1")).await;
    bench.claim(first).await;
    let second = bench.enqueue(vec![newer("a", "2")]).await.remove(0).unwrap();
    assert_eq!(second.how, Accepted::Created);
    // The one behind it takes the next change in.
    let third = bench.enqueue(vec![newer("a", "3")]).await.remove(0).unwrap();
    assert_eq!(third, Enqueued { id: second.id, how: Accepted::Coalesced });
    assert_eq!(&*bench.job(first).await.payload, "1");
}

async fn nothing_coalesces_across_operations(bench: Bench) {
    bench.add(newer("a", "1")).await;
    let erase = NewJob { operation: OperationName::new("erase").unwrap(), ..newer("a", "2") };
    assert_eq!(bench.enqueue(vec![erase]).await.remove(0).unwrap().how, Accepted::Created);
    // Not even past the other operation's job: that would overtake it.
    assert_eq!(bench.enqueue(vec![newer("a", "3")]).await.remove(0).unwrap().how, Accepted::Created);
}

async fn a_tried_job_keeps_its_backoff_when_it_takes_a_change_in(bench: Bench) {
    let id = bench.add(newer("a", "1")).await;
    let call = bench.claim(id).await;
    let due_at = bench.now + Duration::from_secs(60);
    bench.finish(bench.end(call, vec![(id.seq, Next::Wait { due_at, why: Again::Throttled })])).await;
    bench.add(newer("a", "2")).await;
    let job = bench.job(id).await;
    assert_eq!((job.place, job.due_at, job.version), (Place::Later, due_at, 2));
    // One that was never tried takes the earlier time.
    let later = NewJob { due_at: Some(due_at), ..newer("b", "1") };
    let id = bench.add(later).await;
    assert_eq!(bench.job(id).await.place, Place::Later);
    bench.add(newer("b", "2")).await;
    assert_eq!(bench.job(id).await.place, Place::Ready);
}

async fn a_revived_job_goes_to_the_end_of_its_key(bench: Bench) {
    let first = bench.add(keyed("a", "1")).await;
    let second = bench.add(keyed("a", "2")).await;
    let call = bench.claim(first).await;
    bench.finish(bench.end(call, vec![(first.seq, Next::Dead)])).await;
    assert!(bench.one(Change::ReviveJobs { jobs: vec![first], fresh: true }).await);
    let job = bench.job(first).await;
    assert_eq!((job.place, job.attempts, job.version), (Place::Behind, 0, 2));
    assert_eq!(bench.store.blocker(&job).await.unwrap().unwrap().id, second);
    bench.change(Change::CancelJobs { jobs: vec![second] }).await.unwrap();
    assert_eq!(bench.job(first).await.place, Place::Ready);
    // A new job of the key comes after it.
    let third = bench.add(keyed("a", "3")).await;
    assert!(bench.job(third).await.turn > bench.job(first).await.turn);
}

async fn a_resolved_job_is_still_first_of_its_key(bench: Bench) {
    let first = bench.add(keyed("a", "1")).await;
    let second = bench.add(keyed("a", "2")).await;
    let call = bench.claim(first).await;
    bench.finish(bench.end(call, vec![(first.seq, Next::Unknown)])).await;
    bench.change(Change::ResolveJobs { jobs: vec![first], decision: Decision::Again }).await.unwrap();
    assert_eq!((bench.state(first).await, bench.job(first).await.place), (State::Waiting, Place::Ready));
    assert_eq!(bench.job(second).await.place, Place::Behind);
}

async fn a_key_keeps_its_order_when_its_account_is_spread_otherwise(bench: Bench) {
    // A declaration changed between them: 1 part, then 3, then 2.
    let mut ids = Vec::new();
    for part in [0, 2, 1] {
        ids.push(bench.add(NewJob { part, ..keyed("a", "1") }).await);
    }
    let mut flows = Vec::new();
    for (id, part) in ids.iter().zip([0, 2, 1]) {
        let job = bench.job(*id).await;
        assert_eq!(job.flow_key.part, part);
        flows.push(job.flow);
    }
    assert!(flows[0] != flows[1] && flows[1] != flows[2]);
    for (at, id) in ids.iter().enumerate() {
        // Whoever owns the later parts finds nothing there.
        for (later, flow) in ids.iter().zip(&flows).skip(at + 1) {
            assert_eq!(bench.job(*later).await.place, Place::Behind);
            assert!(bench.begin(bench.take(*flow, Class::Normal, 9)).await.is_empty());
        }
        let call = bench.claim(*id).await;
        bench.finish(bench.end(call, vec![(id.seq, Next::Delivered)])).await;
    }
}

async fn a_change_joins_a_waiting_one_of_another_part(bench: Bench) {
    let first = bench.add(newer("a", "1")).await;
    let later = |part, payload| NewJob { part, ..newer("a", payload) };
    // One commit of its own, and two in one.
    let joined = Enqueued { id: first, how: Accepted::Coalesced };
    assert_eq!(bench.enqueue(vec![later(5, "2")]).await, [Ok(joined)]);
    assert_eq!(bench.enqueue(vec![later(5, "3"), later(6, "4")]).await, [Ok(joined), Ok(joined)]);
    let job = bench.job(first).await;
    assert_eq!((&*job.payload, job.version, job.flow_key.part), ("4", 4, 0));
    let fresh = |part, payload| NewJob { part, ..newer("b", payload) };
    let done = bench.enqueue(vec![fresh(3, "1"), fresh(4, "2")]).await;
    assert_eq!(done[1].as_ref().unwrap().id, done[0].as_ref().unwrap().id);
}

//! Claims, the journal, fencing, and what a zombie's late answer is worth.

use std::sync::Arc;
use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::model::call::{Ending, Lane, LimitKey, Permit};
use tidegate::model::event::What;
use tidegate::model::flow::Class;
use tidegate::model::id::CallId;
use tidegate::model::job::{Coalesce, NewJob};
use tidegate::model::shard::Hold;
use tidegate::model::state::State;
use tidegate::store::*;

use super::factory::{Bench, held_by, job, keyed, permit};

suite!(
    claims_go_by_class_and_then_by_turn,
    a_batch_call_stops_at_its_bytes_but_takes_at_least_one,
    a_begun_call_is_in_the_journal_with_its_jobs,
    an_old_epoch_or_a_stale_fence_begins_nothing,
    jobs_enqueued_in_a_batch_may_begin_in_it,
    the_end_of_a_call_counts_once,
    a_late_success_is_adopted_unless_something_newer_began,
    a_late_success_of_an_older_payload_is_not_adopted,
    a_job_without_an_outcome_is_unknown,
    the_journal_tells_a_limiter_what_may_still_count,
    only_calls_that_are_old_and_ended_are_pruned,
    events_are_packed_by_flow_and_kind,
);

async fn claims_go_by_class_and_then_by_turn(bench: Bench) {
    let bulk = bench.add(NewJob { class: Class::Bulk, ..job("1") }).await;
    let normal = [bench.add(job("2")).await, bench.add(job("3")).await];
    let urgent = bench.add(NewJob { class: Class::Urgent, ..job("4") }).await;
    let flow = bench.job(bulk).await.flow;
    let mut begin = bench.take(flow, Class::Urgent, 9);
    begin.takes = Class::ALL.map(|class| Take { flow, class, count: 9, hold: Hold::ALONE }).to_vec();
    begin.calls_max = 3;
    assert_eq!(bench.store.ahead(&bench.job(bulk).await).await.unwrap(), 3);
    let calls = bench.begin(begin.clone()).await;
    let taken: Vec<_> = calls.iter().map(|call| call.jobs[0].id).collect();
    assert_eq!(taken, [urgent, normal[0], normal[1]]);
    assert!(calls.windows(2).all(|pair| pair[0].id < pair[1].id));
    assert_eq!(bench.begin(begin).await[0].jobs[0].id, bulk);
}

async fn a_batch_call_stops_at_its_bytes_but_takes_at_least_one(bench: Bench) {
    let ids = [bench.add(job("\"123456\"")).await, bench.add(job("12")).await, bench.add(job("34")).await];
    let flow = bench.job(ids[0]).await.flow;
    let begin = Begin { lane: Lane::Batch, bytes_max: 4, calls_max: 1, ..bench.take(flow, Class::Normal, 10) };
    let taken = |calls: Vec<BegunCall>| -> Vec<_> { calls[0].jobs.iter().map(|job| job.id).collect() };
    assert_eq!(taken(bench.begin(begin.clone()).await), [ids[0]]);
    assert_eq!(taken(bench.begin(begin.clone()).await), [ids[1], ids[2]]);
    assert!(bench.begin(begin).await.is_empty());
}

async fn a_begun_call_is_in_the_journal_with_its_jobs(bench: Bench) {
    let ids = [bench.add(keyed("a", "1")).await, bench.add(keyed("b", "2")).await];
    let flow = bench.job(ids[0]).await.flow;
    let spends: Arc<[_]> = Arc::from([(LimitKey(Arc::from("crm/core:60s@\"x\"")), 3)]);
    let permit = Permit { spends, granted_at: bench.now, epoch: 0 };
    let begin = Begin { lane: Lane::Batch, permit, ..bench.take(flow, Class::Normal, 10) };
    let call = bench.begin(begin.clone()).await.remove(0);
    assert_eq!(call.jobs.iter().map(|job| job.first_sent_at).collect::<Vec<_>>(), [Some(bench.now); 2]);
    assert_eq!(bench.store.claimed(call.id).await.unwrap(), call.jobs);
    let open = bench.store.open_calls(Whose::Anyone, CallId(0), 10).await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].permit.clone(), open[0].lease_until), (begin.permit, begin.lease_until));
    assert_eq!(open[0].jobs, ids.map(|id| id.seq));
    assert_eq!((open[0].lane, open[0].ending, open[0].begun_at), (Lane::Batch, Ending::Open, bench.now));
    assert!(bench.store.open_calls(Whose::Anyone, call.id, 10).await.unwrap().is_empty());
}

async fn an_old_epoch_or_a_stale_fence_begins_nothing(bench: Bench) {
    let id = bench.add(job("1")).await;
    let take = bench.take(bench.job(id).await.flow, Class::Normal, 1);
    let old = Permit { epoch: bench.store.info().await.unwrap().epoch - 1, ..permit() };
    assert!(bench.begin(Begin { permit: old, ..take.clone() }).await.is_empty());
    assert!(bench.begin(held_by(Hold::NONE, take.clone())).await.is_empty());
    let flow = bench.job(bench.add(NewJob { part: 1, ..job("2") }).await).await.flow;
    let mut both = held_by(Hold::NONE, take.clone());
    both.takes.extend(bench.take(flow, Class::Normal, 1).takes);
    both.calls_max = 2;
    // What is ours still goes.
    let calls = bench.begin(both).await;
    assert_eq!(calls.iter().map(|call| &*call.jobs[0].payload).collect::<Vec<_>>(), ["2"]);
    assert_eq!(bench.begin(take).await.len(), 1);
}

async fn jobs_enqueued_in_a_batch_may_begin_in_it(bench: Bench) {
    let flow = bench.job(bench.add(job("1")).await).await.flow;
    let begins = vec![bench.take(flow, Class::Normal, 1), bench.take(flow, Class::Normal, 5)];
    let done = bench.commit(Batch { enqueues: vec![job("2"), job("3")], begins, ..bench.batch() }).await;
    assert_eq!(done.begins.iter().map(|begun| begun.calls.len()).collect::<Vec<_>>(), [1, 2]);
}

async fn the_end_of_a_call_counts_once(bench: Bench) {
    let id = bench.add(job("1")).await;
    let call = bench.claim(id).await;
    let end = bench.end(call, vec![(id.seq, Next::Delivered)]);
    assert!(bench.finish(end.clone()).await.applied);
    let before = bench.store.event_bounds().await.unwrap();
    let again = bench.finish(end).await;
    assert_eq!(again, Finished { applied: false, stale: vec![id.seq], adopted: vec![] });
    // A repeat of the same news is no news.
    assert_eq!(bench.store.event_bounds().await.unwrap(), before);
    let ended = bench.store.call(call).await.unwrap().unwrap();
    assert_eq!((ended.ending, ended.status, ended.settled_at), (Ending::Answered, Some(200), Some(bench.now)));
}

async fn a_late_success_is_adopted_unless_something_newer_began(bench: Bench) {
    let ids = [bench.add(job("1")).await, bench.add(job("2")).await, bench.add(job("3")).await];
    let flow = bench.job(ids[0]).await.flow;
    let calls = bench.begin(bench.take(flow, Class::Normal, 3)).await;
    // The sweeper takes the calls for dead.
    let waits = Next::Wait { due_at: bench.now, why: Again::Crashed };
    for (call, next) in calls.iter().zip([waits, Next::Unknown, waits]) {
        let crashed = FinishCall { ending: Ending::Crashed, ..bench.end(call.id, vec![(call.jobs[0].id.seq, next)]) };
        bench.finish(crashed).await;
    }
    // The first of the ready ones is the first job, so it is retried by a new call.
    let newer = bench.begin(bench.take(flow, Class::Normal, 1)).await.remove(0);
    assert_eq!(newer.jobs[0].id, ids[0]);
    let mut done = Vec::new();
    for call in &calls {
        done.push(bench.finish(bench.end(call.id, vec![(call.jobs[0].id.seq, Next::Delivered)])).await);
    }
    assert_eq!(
        done.iter().map(|done| (done.applied, done.adopted.len())).collect::<Vec<_>>(),
        [(false, 0), (false, 1), (false, 1)]
    );
    assert_eq!(bench.state(ids[0]).await, State::Calling);
    assert_eq!(bench.state(ids[1]).await, State::Delivered);
    assert_eq!(bench.state(ids[2]).await, State::Delivered);
    let events = bench.store.events(0, 100).await.unwrap();
    let observed = events.iter().filter_map(|event| match &event.what {
        What::DuplicateObserved { call, jobs } => Some((*call, jobs.clone())),
        _ => None,
    });
    assert_eq!(observed.collect::<Vec<_>>(), [(calls[0].id, vec![ids[0].seq])]);
}

async fn a_late_success_of_an_older_payload_is_not_adopted(bench: Bench) {
    let id = bench.add(keyed("a", "1")).await;
    let call = bench.claim(id).await;
    let wait = Next::Wait { due_at: bench.now, why: Again::Crashed };
    bench.finish(FinishCall { ending: Ending::Crashed, ..bench.end(call, vec![(id.seq, wait)]) }).await;
    bench.add(NewJob { coalesce: Coalesce::Replace, ..keyed("a", "2") }).await;
    let late = bench.finish(bench.end(call, vec![(id.seq, Next::Delivered)])).await;
    assert!(late.adopted.is_empty());
    assert_eq!(bench.state(id).await, State::Waiting);
}

async fn a_job_without_an_outcome_is_unknown(bench: Bench) {
    let ids = [bench.add(job("1")).await, bench.add(job("2")).await];
    let flow = bench.job(ids[0]).await.flow;
    let call = bench.begin(Begin { lane: Lane::Batch, ..bench.take(flow, Class::Normal, 2) }).await.remove(0);
    bench.finish(bench.end(call.id, vec![(ids[0].seq, Next::Delivered)])).await;
    assert_eq!(bench.state(ids[1]).await, State::Unknown);
}

async fn the_journal_tells_a_limiter_what_may_still_count(mut bench: Bench) {
    let flow = bench.job(bench.add(job("0")).await).await.flow;
    bench.enqueue((1..5).map(|n| job(&n.to_string())).collect()).await;
    let spends: Arc<[_]> = Arc::from([(LimitKey(Arc::from("crm/a:60s")), 1)]);
    let spending = Permit { spends, granted_at: bench.now, epoch: 0 };
    let free = bench.begin(bench.take(flow, Class::Normal, 1)).await.remove(0);
    let begin = Begin { permit: spending.clone(), ..bench.take(flow, Class::Normal, 4) };
    let calls = bench.begin(begin).await;
    let early = bench.now;
    let seq = |call: &BegunCall| call.jobs[0].id.seq;
    for call in [&free, &calls[0]] {
        bench.finish(bench.end(call.id, vec![(seq(call), Next::Delivered)])).await;
    }
    bench.pass(Duration::from_secs(10));
    let back = Next::Wait { due_at: bench.now, why: Again::NotSent };
    bench.finish(bench.end(calls[1].id, vec![(seq(&calls[1]), Next::Delivered)])).await;
    let unsent = FinishCall { ending: Ending::NotSent, ..bench.end(calls[2].id, vec![(seq(&calls[2]), back)]) };
    bench.finish(unsent).await;
    let all = bench.store.journal(early, CallId(0), 10).await.unwrap();
    assert_eq!(all.iter().map(|e| e.call).collect::<Vec<_>>(), calls.iter().map(|c| c.id).collect::<Vec<_>>());
    assert!(all.iter().all(|entry| entry.permit == spending));
    let since = Timestamp(early.0 + 1);
    let recent = bench.store.journal(since, CallId(0), 10).await.unwrap();
    let told: Vec<_> = recent.iter().map(|e| (e.call, e.settled_at.is_some(), e.sent)).collect();
    assert_eq!(told, [(calls[1].id, true, true), (calls[2].id, true, false), (calls[3].id, false, true)]);
    assert_eq!(bench.store.journal(since, calls[2].id, 10).await.unwrap().len(), 1);
}

async fn only_calls_that_are_old_and_ended_are_pruned(mut bench: Bench) {
    let ids = [bench.add(job("1")).await, bench.add(job("2")).await];
    let flow = bench.job(ids[0]).await.flow;
    let calls = bench.begin(bench.take(flow, Class::Normal, 2)).await;
    bench.finish(bench.end(calls[0].id, vec![(ids[0].seq, Next::Delivered)])).await;
    bench.pass(Duration::from_secs(100));
    let prune = Change::Prune {
        finished_before: Timestamp::ZERO,
        dead_before: Timestamp::ZERO,
        calls_before: bench.now,
        events_before: Timestamp::ZERO,
        limit: 10,
    };
    assert_eq!(bench.change(prune).await.unwrap(), Changed::Count(1));
    assert_eq!(bench.store.call(calls[0].id).await.unwrap(), None);
    assert!(bench.store.call(calls[1].id).await.unwrap().is_some());
}

async fn events_are_packed_by_flow_and_kind(bench: Bench) {
    let done = bench.enqueue((0..50).map(|n| job(&n.to_string())).collect()).await;
    let ids: Vec<_> = done.into_iter().map(|e| e.unwrap().id).collect();
    let flow = bench.job(ids[0]).await.flow;
    let call = bench.begin(Begin { lane: Lane::Batch, ..bench.take(flow, Class::Normal, 50) }).await.remove(0);
    let next =
        |(n, id): (usize, &tidegate::model::id::JobId)| (id.seq, if n < 40 { Next::Delivered } else { Next::Dead });
    bench.finish(bench.end(call.id, ids.iter().enumerate().map(next).collect())).await;
    let events = bench.store.events(0, 100).await.unwrap();
    let sizes = events.iter().map(|event| match &event.what {
        What::Enqueued { jobs, .. } | What::Changed { jobs, .. } => jobs.len(),
        other => panic!("unexpected {other:?}"),
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [50, 50, 40, 10]);
    assert_eq!(bench.store.events(3, 100).await.unwrap(), events[3..]);
}

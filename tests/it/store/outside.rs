//! What programs outside leave in a store: permits without jobs, and runs that undo runs.

use std::sync::Arc;

use tidegate::clock::Timestamp;
use tidegate::model::call::{Ending, LimitKey, Permit};
use tidegate::model::flow::Class;
use tidegate::model::id::CallId;
use tidegate::model::name::Tenant;
use tidegate::model::run::NewRun;
use tidegate::store::*;

use super::factory::{Bench, job, permit};

suite!(
    permits_without_jobs_are_journaled_with_their_lease,
    permits_of_an_old_epoch_are_not_journaled,
    a_run_is_undone_by_one_run_however_often_it_is_asked_for,
);

fn loan(bench: &Bench, count: u32) -> Begin {
    let spends = Arc::from([(LimitKey(Arc::from("crm/core:3600s")), count)]);
    Begin {
        takes: Vec::new(),
        calls_max: 1,
        permit: Permit { spends, ..permit() },
        bare: true,
        outside: count,
        ..bench.take(tidegate::model::id::FlowId(0), Class::Normal, 0)
    }
}

async fn permits_without_jobs_are_journaled_with_their_lease(bench: Bench) {
    let ordinary = bench.add(job("1")).await;
    let flow = bench.job(ordinary).await.flow;
    let spending = Permit { spends: Arc::from([(LimitKey(Arc::from("crm/core:3600s")), 1)]), ..permit() };
    bench.begin(Begin { permit: spending, ..bench.take(flow, Class::Normal, 1) }).await;
    let ask = loan(&bench, 5);
    let lent = bench.begin(ask.clone()).await.remove(0);
    assert!(lent.jobs.is_empty());
    let call = bench.store.call(lent.id).await.unwrap().unwrap();
    assert_eq!((call.outside, call.ending, call.jobs.len()), (5, Ending::Open, 0));
    assert_eq!((call.permit, call.lease_until), (ask.permit.clone(), ask.lease_until));
    let entries = bench.store.journal(Timestamp::ZERO, CallId(0), 10).await.unwrap();
    let until: Vec<_> = entries.iter().map(|e| e.outside_until).collect();
    assert_eq!(until, [None, Some(ask.lease_until)]);
    let open = bench.store.open_calls(Whose::Anyone, CallId(0), 10).await.unwrap();
    assert_eq!(open.iter().map(|call| call.outside).collect::<Vec<_>>(), [0, 5]);
    assert!(bench.store.claimed(lent.id).await.unwrap().is_empty());

    let spends: Arc<[_]> = Arc::from([(LimitKey(Arc::from("crm/core:3600s")), 2)]);
    let end = FinishCall { spends: Some(spends.clone()), status: None, ..bench.end(lent.id, Vec::new()) };
    let twice = Batch { finishes: vec![end.clone(), end.clone()], ..bench.batch() };
    let applied = |done: Committed| done.finishes.iter().map(|f| f.applied).collect::<Vec<_>>();
    assert_eq!(applied(bench.commit(twice).await), [true, false]);
    assert_eq!(applied(bench.commit(Batch { finishes: vec![end], ..bench.batch() }).await), [false]);
    let ended = bench.store.call(lent.id).await.unwrap().unwrap();
    assert_eq!((ended.ending, ended.permit.spends), (Ending::Answered, spends));
}

async fn permits_of_an_old_epoch_are_not_journaled(bench: Bench) {
    bench.store.bump_epoch(0, "r").await.unwrap();
    let old = loan(&bench, 1);
    assert!(bench.begin(old.clone()).await.is_empty());
    let permit = Permit { epoch: 1, ..old.permit.clone() };
    assert_eq!(bench.begin(Begin { permit, ..old }).await.len(), 1);
}

async fn a_run_is_undone_by_one_run_however_often_it_is_asked_for(bench: Bench) {
    let run = |undo_of| {
        let run = NewRun { display_name: "r".into(), tenant: Tenant::default(), labels: Default::default(), undo_of };
        Change::CreateRun { run }
    };
    let made = |changed| match changed {
        Ok(Changed::Run(run)) => run,
        other => panic!("expected a run, got {other:?}"),
    };
    let first = made(bench.change(run(None)).await);
    let both = Batch { changes: vec![run(Some(first.id.seq)); 2], ..bench.batch() };
    let both: Vec<_> = bench.commit(both).await.changes.into_iter().map(made).collect();
    assert_eq!(both[0], both[1]);
    assert_eq!(both[0].undo_of, Some(first.id.seq));
    assert_eq!(made(bench.change(run(Some(first.id.seq))).await).id, both[0].id);
    assert_eq!(bench.store.run(both[0].id).await.unwrap().unwrap().undo_of, Some(first.id.seq));
    let listed: Vec<_> = bench.store.list_runs(None, 10).await.unwrap().iter().map(|r| r.undo_of).collect();
    assert_eq!(listed, [Some(first.id.seq), None]);
    let third = made(bench.change(run(Some(both[0].id.seq))).await);
    assert!(third.id.seq > both[0].id.seq);
}

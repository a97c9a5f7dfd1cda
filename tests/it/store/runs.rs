//! Runs: progress, holding back, sealing, calling off.

use tidegate::model::flow::Class;
use tidegate::model::id::{JobId, RunId};
use tidegate::model::job::NewJob;
use tidegate::model::name::Tenant;
use tidegate::model::run::{NewRun, Run, RunState, RunWish};
use tidegate::model::state::State;
use tidegate::store::*;

use super::factory::{Bench, job, keyed};

suite!(
    a_paused_run_holds_its_jobs_and_no_others,
    a_sealed_run_is_finished_when_its_last_job_is_final,
    an_empty_run_finishes_when_it_is_sealed,
    a_sealed_run_takes_no_jobs,
    a_run_that_is_called_off_ends_when_nothing_is_left,
    a_dead_job_of_a_finished_run_may_come_back,
    a_job_of_a_cancelled_run_may_not_come_back,
    what_a_run_delivered_is_told_from_the_last_one_on,
);

impl Bench {
    pub(super) async fn new_run(&self) -> RunId {
        let run = NewRun {
            display_name: "test".into(),
            tenant: Tenant::default(),
            labels: Default::default(),
            undo_of: None,
        };
        match self.change(Change::CreateRun { run }).await.unwrap() {
            Changed::Run(run) => run.id,
            other => panic!("expected a run, got {other:?}"),
        }
    }

    async fn wish(&self, run: RunId, wish: RunWish) -> Result<Run, Refusal> {
        self.change(Change::WishRun { run, wish }).await.map(|changed| match changed {
            Changed::Run(run) => run,
            other => panic!("expected a run, got {other:?}"),
        })
    }

    async fn run(&self, run: RunId) -> Run {
        self.store.run(run).await.unwrap().unwrap()
    }

    pub(super) async fn add_to(&self, run: RunId) -> JobId {
        self.add(NewJob { run: Some(run), ..job("1") }).await
    }
}

async fn a_paused_run_holds_its_jobs_and_no_others(bench: Bench) {
    let run = bench.new_run().await;
    let (inside, outside) = (bench.add_to(run).await, bench.add(job("2")).await);
    let (held, free) = (bench.job(inside).await.flow, bench.job(outside).await.flow);
    assert_ne!(held, free);
    let done = bench.commit(Batch { changes: vec![Change::WishRun { run, wish: RunWish::Pause }], ..bench.batch() });
    assert!(done.await.flows.iter().any(|flow| flow.id == held && flow.held));
    assert!(bench.begin(bench.take(held, Class::Normal, 1)).await.is_empty());
    assert_eq!(bench.begin(bench.take(free, Class::Normal, 1)).await.len(), 1);
    // A paused run goes on taking jobs.
    bench.add_to(run).await;
    bench.wish(run, RunWish::Resume).await.unwrap();
    assert_eq!(bench.begin(bench.take(held, Class::Normal, 9)).await.len(), 2);
    assert_eq!(bench.run(run).await.counts.calling, 2);
    assert_eq!(bench.store.run_flows(run, 9).await.unwrap().len(), 1);
}

async fn a_sealed_run_is_finished_when_its_last_job_is_final(bench: Bench) {
    let run = bench.new_run().await;
    let ids = [bench.add_to(run).await, bench.add_to(run).await];
    assert_eq!(bench.wish(run, RunWish::Seal).await.unwrap().state, RunState::Sealed);
    let calls = bench.begin(bench.take(bench.job(ids[0]).await.flow, Class::Normal, 2)).await;
    bench.finish(bench.end(calls[0].id, vec![(ids[0].seq, Next::Delivered)])).await;
    assert_eq!(bench.run(run).await.state, RunState::Sealed);
    // Unknown is not final.
    bench.finish(bench.end(calls[1].id, vec![(ids[1].seq, Next::Unknown)])).await;
    assert_eq!(bench.run(run).await.state, RunState::Sealed);
    bench.change(Change::ResolveJobs { jobs: vec![ids[1]], decision: Decision::Dead }).await.unwrap();
    let run = bench.run(run).await;
    assert_eq!((run.state, run.finished_at), (RunState::Finished, Some(bench.now)));
    assert_eq!((run.counts.delivered, run.counts.dead), (1, 1));
}

async fn an_empty_run_finishes_when_it_is_sealed(bench: Bench) {
    let run = bench.new_run().await;
    assert_eq!(bench.wish(run, RunWish::Seal).await.unwrap().state, RunState::Finished);
    let refused = bench.wish(run, RunWish::Pause).await.unwrap_err();
    assert_eq!(refused, Refusal::WrongRunState { id: run, state: "finished" });
}

async fn a_sealed_run_takes_no_jobs(bench: Bench) {
    let run = bench.new_run().await;
    bench.add_to(run).await;
    bench.wish(run, RunWish::Seal).await.unwrap();
    let refused = bench.enqueue(vec![NewJob { run: Some(run), ..job("2") }]).await.remove(0);
    assert_eq!(refused, Err(Refusal::WrongRunState { id: run, state: "sealed" }));
}

async fn a_run_that_is_called_off_ends_when_nothing_is_left(bench: Bench) {
    let run = bench.new_run().await;
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(bench.add(NewJob { run: Some(run), ..keyed(&format!("k{}", n % 3), "1") }).await);
    }
    let flow = bench.job(ids[0]).await.flow;
    let call = bench.begin(bench.take(flow, Class::Normal, 1)).await.remove(0);
    assert!(bench.change(Change::CancelRunJobs { run, limit: 9 }).await.is_err());
    bench.wish(run, RunWish::Cancel).await.unwrap();
    assert_eq!(bench.change(Change::CancelRunJobs { run, limit: 2 }).await.unwrap(), Changed::Count(2));
    assert_eq!(bench.change(Change::CancelRunJobs { run, limit: 9 }).await.unwrap(), Changed::Count(3));
    assert_eq!(bench.run(run).await.state, RunState::Cancelling);
    bench.finish(bench.end(call.id, vec![(call.jobs[0].id.seq, Next::Delivered)])).await;
    let run = bench.run(run).await;
    assert_eq!((run.state, run.counts.cancelled, run.counts.delivered), (RunState::Cancelled, 5, 1));
}

async fn finished_with_a_dead_job(bench: &Bench) -> (RunId, JobId) {
    let run = bench.new_run().await;
    let id = bench.add_to(run).await;
    let call = bench.claim(id).await;
    bench.wish(run, RunWish::Seal).await.unwrap();
    bench.finish(bench.end(call, vec![(id.seq, Next::Dead)])).await;
    assert_eq!(bench.run(run).await.state, RunState::Finished);
    (run, id)
}

async fn a_dead_job_of_a_finished_run_may_come_back(bench: Bench) {
    let (run, id) = finished_with_a_dead_job(&bench).await;
    assert!(bench.one(Change::ReviveJobs { jobs: vec![id], fresh: false }).await);
    assert_eq!((bench.run(run).await.state, bench.run(run).await.finished_at), (RunState::Sealed, None));
    let call = bench.claim(id).await;
    bench.finish(bench.end(call, vec![(id.seq, Next::Delivered)])).await;
    assert_eq!(bench.run(run).await.state, RunState::Finished);
}

async fn a_job_of_a_cancelled_run_may_not_come_back(bench: Bench) {
    let run = bench.new_run().await;
    let id = bench.add_to(run).await;
    let call = bench.claim(id).await;
    bench.finish(bench.end(call, vec![(id.seq, Next::Dead)])).await;
    assert_eq!(bench.wish(run, RunWish::Cancel).await.unwrap().state, RunState::Cancelled);
    assert!(!bench.one(Change::ReviveJobs { jobs: vec![id], fresh: true }).await);
    assert_eq!(bench.state(id).await, State::Dead);
}

async fn what_a_run_delivered_is_told_from_the_last_one_on(bench: Bench) {
    let (run, other) = (bench.new_run().await, bench.new_run().await);
    let (ids, stranger) =
        ([bench.add_to(run).await, bench.add_to(run).await, bench.add_to(run).await], bench.add_to(other).await);
    let calls = bench.begin(bench.take(bench.job(ids[0]).await.flow, Class::Normal, 3)).await;
    let theirs = bench.begin(bench.take(bench.job(stranger).await.flow, Class::Normal, 1)).await;
    bench.finish(bench.end(theirs[0].id, vec![(stranger.seq, Next::Delivered)])).await;
    // The second one dies first, comes back and is delivered: it moves between the tables of a store that has two.
    for (call, id) in calls.iter().zip(ids) {
        let next = if id == ids[1] { Next::Dead } else { Next::Delivered };
        bench.finish(bench.end(call.id, vec![(id.seq, next)])).await;
    }
    let told = async |below, limit| {
        let found = bench.store.run_delivered(run, below, limit).await.unwrap();
        assert!(found.iter().all(|job| job.provider.as_str() == "crm" && job.operation.as_str() == "sync"));
        found.into_iter().map(|job| (job.turn, job.seq)).collect::<Vec<_>>()
    };
    let turn = async |id: JobId| (bench.job(id).await.turn, id.seq);
    assert_eq!(told(None, 9).await, [turn(ids[2]).await, turn(ids[0]).await]);
    assert!(bench.one(Change::ReviveJobs { jobs: vec![ids[1]], fresh: false }).await);
    let call = bench.claim(ids[1]).await;
    bench.finish(bench.end(call, vec![(ids[1].seq, Next::Delivered)])).await;
    let mut all = [turn(ids[0]).await, turn(ids[1]).await, turn(ids[2]).await];
    all.sort_by(|a, b| b.cmp(a));
    assert_eq!(told(None, 9).await, all);
    // Page by page.
    assert_eq!((told(None, 2).await, told(Some(all[1]), 2).await), (all[..2].to_vec(), all[2..].to_vec()));
    assert_eq!(bench.store.run_delivered(other, None, 9).await.unwrap().len(), 1);
}

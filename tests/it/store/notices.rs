//! Notices: what a commit brings to an end is told by the same commit, to those who want to hear of it, once.

use std::sync::Arc;

use serde_json::Value;
use tidegate::model::flow::Class;
use tidegate::model::job::{Job, NewJob};
use tidegate::model::name::{ProviderName, Tenant};
use tidegate::model::notify::{Occasion, Subscription};
use tidegate::model::run::{NewRun, RunWish};
use tidegate::store::*;

use super::factory::{Bench, all_jobs, job};

suite!(
    the_end_of_a_job_and_its_notices_are_one_commit,
    an_end_that_does_not_count_tells_nothing,
    what_a_person_ends_is_told_too_and_of_a_notice_nobody_is,
    the_end_of_a_run_is_told_with_its_counts,
);

fn told(name: &str, on: &[Occasion]) -> Subscription {
    let provider = ProviderName::new(format!("notify-{name}")).unwrap();
    Subscription { provider, on: on.iter().copied().collect(), providers: Default::default() }
}

fn everything() -> Arc<Vec<Subscription>> {
    Arc::new(vec![told("all", &Occasion::ALL)])
}

async fn notices(bench: &Bench) -> Vec<(Job, Value)> {
    let jobs = all_jobs(&*bench.store).await.into_iter().rev();
    let own = jobs.filter(|job| job.flow_key.provider.as_str().starts_with("notify-"));
    own.map(|job| (job.clone(), serde_json::from_str(&job.payload).unwrap())).collect()
}

async fn the_end_of_a_job_and_its_notices_are_one_commit(bench: Bench) {
    let (good, bad) = (bench.add(job("1")).await, bench.add(job("2")).await);
    let calls = bench.begin(bench.take(bench.job(good).await.flow, Class::Normal, 2)).await;
    let (first, second) = (calls[0].id, calls[1].id);
    let notify = Arc::new(vec![
        told("dead", &[Occasion::JobDead]),
        told("ends", &[Occasion::JobDead, Occasion::JobDelivered]),
        Subscription {
            providers: [ProviderName::new("erp").unwrap()].into(),
            ..told("erp", &[Occasion::JobDead, Occasion::JobDelivered])
        },
    ]);
    let mut dead = bench.end(second, vec![(bad.seq, Next::Dead)]);
    dead.outcomes[0].error = Some("no such user".into());
    let finishes = vec![bench.end(first, vec![(good.seq, Next::Delivered)]), dead];
    let done = bench.commit(Batch { finishes, notify, ..bench.batch() }).await;
    assert!(done.enqueues.is_empty(), "nobody asked for these");
    let flows: Vec<&str> = done.flows.iter().map(|flow| flow.key.provider.as_str()).collect();
    assert!(flows.contains(&"notify-dead") && flows.contains(&"notify-ends"), "their gates hear of it: {flows:?}");
    let told: Vec<(String, String, String)> = notices(&bench)
        .await
        .into_iter()
        .map(|(job, data)| {
            let text = |pointer: &str| data.pointer(pointer).unwrap().as_str().unwrap().to_owned();
            assert_eq!(job.key.unwrap().as_str(), format!("job {}", text("/data/job/id")));
            (job.flow_key.provider.to_string(), text("/type"), text("/data/job/id"))
        })
        .collect();
    let expected =
        [("notify-ends", "job.delivered", good), ("notify-dead", "job.dead", bad), ("notify-ends", "job.dead", bad)];
    assert_eq!(told, expected.map(|(to, what, id)| (to.to_owned(), what.to_owned(), id.to_string())));
    let (_, last) = notices(&bench).await.pop().unwrap();
    assert_eq!(last["data"]["job"]["error"], "no such user");
    assert_eq!((&last["data"]["job"]["provider"], &last["data"]["job"]["attempts"]), (&"crm".into(), &1.into()));
}

async fn an_end_that_does_not_count_tells_nothing(bench: Bench) {
    let id = bench.add(job("1")).await;
    let call = bench.claim(id).await;
    for expected in [1, 1] {
        // The second end comes from a daemon that was taken for dead.
        let finishes = vec![bench.end(call, vec![(id.seq, Next::Delivered)])];
        bench.commit(Batch { finishes, notify: everything(), ..bench.batch() }).await;
        assert_eq!(notices(&bench).await.len(), expected);
    }
    // One that goes on trying has not ended.
    let id = bench.add(job("2")).await;
    let call = bench.claim(id).await;
    let finishes = vec![bench.end(call, vec![(id.seq, Next::Wait { due_at: bench.now, why: Again::Retry })])];
    bench.commit(Batch { finishes, notify: everything(), ..bench.batch() }).await;
    assert_eq!(notices(&bench).await.len(), 1);
}

async fn what_a_person_ends_is_told_too_and_of_a_notice_nobody_is(bench: Bench) {
    let id = bench.add(job("1")).await;
    let cancel = |jobs| Batch { changes: vec![Change::CancelJobs { jobs }], notify: everything(), ..bench.batch() };
    bench.commit(cancel(vec![id])).await;
    let notice = notices(&bench).await.remove(0);
    assert_eq!((&notice.1["type"], notices(&bench).await.len()), (&"job.cancelled".into(), 1));
    bench.commit(cancel(vec![notice.0.id])).await;
    assert_eq!(notices(&bench).await.len(), 1, "the end of a notice is no news");
}

async fn the_end_of_a_run_is_told_with_its_counts(bench: Bench) {
    let run =
        NewRun { display_name: "import".into(), tenant: Tenant::default(), labels: Default::default(), undo_of: None };
    let Changed::Run(run) = bench.change(Change::CreateRun { run }).await.unwrap() else { panic!("expected a run") };
    let id = bench.add(NewJob { run: Some(run.id), ..job("1") }).await;
    bench.change(Change::WishRun { run: run.id, wish: RunWish::Seal }).await.unwrap();
    let call = bench.claim(id).await;
    let finishes = vec![bench.end(call, vec![(id.seq, Next::Dead)])];
    bench.commit(Batch { finishes, notify: everything(), ..bench.batch() }).await;
    let told = notices(&bench).await;
    let kinds: Vec<&str> = told.iter().map(|(_, data)| data["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["job.dead", "run.finished"]);
    let data = &told[1].1["data"]["run"];
    assert_eq!((&data["id"], &data["name"], &data["dead"]), (&run.id.to_string().into(), &"import".into(), &1.into()));
    // An empty one ends with its seal.
    let run = NewRun { display_name: "".into(), tenant: Tenant::default(), labels: Default::default(), undo_of: None };
    let Changed::Run(run) = bench.change(Change::CreateRun { run }).await.unwrap() else { panic!("expected a run") };
    let changes = vec![Change::WishRun { run: run.id, wish: RunWish::Seal }];
    bench.commit(Batch { changes, notify: everything(), ..bench.batch() }).await;
    assert_eq!(notices(&bench).await.len(), 3);
}

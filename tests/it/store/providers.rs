//! Declarations in force.

use tidegate::model::event::What;
use tidegate::model::name::ProviderName;
use tidegate::store::*;

use super::factory::{Bench, job};

suite!(
    each_apply_grows_the_revision_and_only_replaces_the_one_expected,
    a_provider_with_work_left_is_deleted_by_force_only,
    pausing_and_the_gates_memory_survive_an_apply,
    the_steady_line_is_remembered,
);

fn crm() -> ProviderName {
    ProviderName::new("crm").unwrap()
}

fn apply(expect: Option<i64>) -> Change {
    Change::ApplyProvider { name: crm(), source: "base_url = \"x\"".into(), expect, actor: "ada".into() }
}

async fn each_apply_grows_the_revision_and_only_replaces_the_one_expected(bench: Bench) {
    let Changed::Provider(first) = bench.change(apply(Some(0))).await.unwrap() else { panic!("expected a provider") };
    assert_eq!((first.revision, first.paused, first.actor.as_str()), (1, false, "ada"));
    let stale = bench.change(apply(Some(0))).await.unwrap_err();
    assert_eq!(stale, Refusal::StaleRevision { name: crm(), current: 1, expected: 0 });
    bench.change(apply(Some(1))).await.unwrap();
    bench.change(apply(None)).await.unwrap();
    let all = bench.store.providers().await.unwrap();
    assert_eq!((all.len(), all[0].revision), (1, 3));
    let events = bench.store.events(0, 10).await.unwrap();
    assert_eq!(events.len(), 3);
    assert!(
        matches!(&events[2].what, What::Provider { kind, detail, .. } if kind == "applied" && detail == "revision 3")
    );
}

async fn a_provider_with_work_left_is_deleted_by_force_only(bench: Bench) {
    let delete = |force| Change::DeleteProvider { name: crm(), force, actor: "ada".into() };
    assert_eq!(bench.change(delete(false)).await, Err(Refusal::NoProvider(crm())));
    bench.change(apply(None)).await.unwrap();
    bench.add(job("1")).await;
    assert_eq!(bench.change(delete(false)).await, Err(Refusal::ProviderBusy { name: crm(), jobs: 1 }));
    assert_eq!(bench.change(delete(true)).await, Ok(Changed::Done));
    assert!(bench.store.providers().await.unwrap().is_empty());
}

async fn pausing_and_the_gates_memory_survive_an_apply(bench: Bench) {
    bench.change(apply(None)).await.unwrap();
    let pause = Change::PauseProvider { name: crm(), paused: true, actor: "ada".into() };
    bench.change(pause).await.unwrap();
    bench.change(Change::SaveGate { provider: crm(), memory: "{\"credits\":2}".into(), news: false }).await.unwrap();
    bench.change(apply(None)).await.unwrap();
    let provider = bench.store.providers().await.unwrap().remove(0);
    assert_eq!((provider.paused, provider.memory.as_deref()), (true, Some("{\"credits\":2}")));
}

async fn the_steady_line_is_remembered(bench: Bench) {
    assert_eq!(bench.store.info().await.unwrap().steady, None);
    bench.store.remember_steady("boot-1", -7).await.unwrap();
    bench.add(job("1")).await;
    let info = bench.store.info().await.unwrap();
    assert_eq!((info.steady, info.steady_floor), (Some(("boot-1".to_owned(), -7)), bench.now));
}

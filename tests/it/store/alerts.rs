//! Alerts in a store: raised, told again and cleared by one of many, and told in the same commit.

use std::sync::Arc;
use std::time::Duration;

use tidegate::model::alert::{Raised, Step};
use tidegate::model::event::What;
use tidegate::model::name::{AlertName, ProviderName};
use tidegate::model::notify::{Occasion, Subscription};
use tidegate::store::*;

use super::factory::{Bench, all_jobs};

suite!(an_alert_is_told_by_one_and_stands_until_it_is_cleared);

fn alert(bench: &Bench) -> Raised {
    Raised {
        name: AlertName::new("late").unwrap(),
        provider: ProviderName::new("crm").unwrap(),
        raised_at: bench.now,
        told_at: bench.now,
        detail: "the oldest job is ready since 900 s".to_owned(),
    }
}

fn change(step: Step, alert: &Raised, expect: Option<&Raised>) -> Change {
    Change::Alert(Box::new(AlertChange { step, alert: alert.clone(), expect: expect.map(|e| e.told_at) }))
}

async fn an_alert_is_told_by_one_and_stands_until_it_is_cleared(mut bench: Bench) {
    let provider = ProviderName::new("notify-ops").unwrap();
    let on = [Occasion::AlertRaised, Occasion::AlertCleared].into();
    let notify = Arc::new(vec![Subscription { provider, on, providers: Default::default() }]);
    let moved = || Err(Refusal::AlertMoved(AlertName::new("late").unwrap()));
    let first = alert(&bench);
    // Two daemons see it at once.
    let changes = vec![change(Step::Raise, &first, None), change(Step::Raise, &first, None)];
    let done = bench.commit(Batch { changes, notify: notify.clone(), ..bench.batch() }).await;
    assert_eq!(done.changes, [Ok(Changed::Done), moved()]);
    assert_eq!(bench.store.alerts().await.unwrap(), std::slice::from_ref(&first));
    let told = |done: &Committed| done.events.iter().filter(|e| matches!(&e.what, What::Provider { .. })).count();
    assert_eq!((told(&done), all_jobs(&*bench.store).await.len()), (1, 1));
    // Told again, by who knows when it was told last.
    bench.pass(Duration::from_secs(60));
    let again = Raised { told_at: bench.now, detail: "960 s".to_owned(), ..first.clone() };
    let changes = vec![change(Step::Repeat, &again, Some(&first)), change(Step::Repeat, &again, Some(&first))];
    let done = bench.commit(Batch { changes, notify: notify.clone(), ..bench.batch() }).await;
    assert_eq!(done.changes, [Ok(Changed::Done), moved()]);
    assert_eq!(bench.store.alerts().await.unwrap(), std::slice::from_ref(&again));
    // Cleared, and then there is nothing to clear.
    assert_eq!(bench.change(change(Step::Clear, &again, Some(&first))).await, moved());
    let changes = vec![change(Step::Clear, &again, Some(&again)), change(Step::Clear, &again, Some(&again))];
    let done = bench.commit(Batch { changes, notify, ..bench.batch() }).await;
    assert_eq!(done.changes, [Ok(Changed::Done), moved()]);
    assert!(bench.store.alerts().await.unwrap().is_empty());
    let mut kinds: Vec<String> = Vec::new();
    for job in all_jobs(&*bench.store).await.into_iter().rev() {
        let notice: serde_json::Value = serde_json::from_str(&job.payload).unwrap();
        kinds.push(format!("{} {}", notice["type"].as_str().unwrap(), notice["data"]["alert"]["repeated"]));
    }
    assert_eq!(kinds, ["alert.raised false", "alert.raised true", "alert.cleared false"]);
}

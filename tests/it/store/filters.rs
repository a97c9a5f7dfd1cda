//! Every store's list lets through exactly what `Filter::passes` lets through.

use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::model::filter::{Comparison, Field, Filter, Value};
use tidegate::model::flow::Class;
use tidegate::model::job::NewJob;
use tidegate::model::name::{Account, Tenant};
use tidegate::model::state::State;
use tidegate::store::*;

use super::factory::{Bench, all_jobs, job, keyed};

suite!(a_list_lets_through_what_the_filter_passes, a_filter_is_not_a_way_into_the_query);

async fn some_jobs(bench: &Bench) {
    let labelled = |name: &str, value: &str| {
        let mut job = job("1");
        job.labels.insert(name.to_owned(), value.to_owned());
        job
    };
    bench
        .enqueue(vec![
            job("1"),
            keyed("ключ", "2"),
            NewJob { class: Class::Urgent, account: Account::new("a").unwrap(), ..job("3") },
            NewJob { due_at: Some(bench.now + Duration::from_secs(9)), tenant: Tenant::new("t").unwrap(), ..job("4") },
            labelled("team", "x"),
            labelled("te\"am'.$[0]", "y"),
            labelled("team", "it's"),
        ])
        .await;
    let flow = bench.store.jobs(&[1]).await.unwrap()[0].flow;
    let calls = bench.begin(bench.take(flow, Class::Normal, 3)).await;
    let seq = |n: usize| calls[n].jobs[0].id.seq;
    bench.finish(bench.end(calls[0].id, vec![(seq(0), Next::Delivered)])).await;
    bench.finish(FinishCall { status: Some(500), ..bench.end(calls[1].id, vec![(seq(1), Next::Dead)]) }).await;
}

fn values(bench: &Bench) -> Vec<(Field, Vec<Value>)> {
    let texts = |all: &[&str]| all.iter().map(|s| Value::Text((*s).to_owned())).collect::<Vec<_>>();
    vec![
        (Field::State, State::ALL.map(Value::State).to_vec()),
        (Field::Provider, texts(&["crm", "a", "z"])),
        (Field::Operation, texts(&["sync", "a"])),
        (Field::Account, texts(&["", "a"])),
        (Field::Tenant, texts(&["", "t"])),
        (Field::Key, texts(&["ключ", "a"])),
        (Field::Class, Class::ALL.map(Value::Class).to_vec()),
        (Field::Attempts, vec![Value::Number(0), Value::Number(1)]),
        (Field::LastStatus, vec![Value::Number(200), Value::Number(500)]),
        (Field::CreateTime, vec![Value::Time(bench.now), Value::Time(Timestamp(0))]),
        (Field::DueTime, vec![Value::Time(bench.now), Value::Text("x".into())]),
        (Field::Run, vec![Value::Run(tidegate::model::id::Id::new(bench.now, 0))]),
        (Field::Label("team".into()), texts(&["x", "it's", "y"])),
        (Field::Label("te\"am'.$[0]".into()), texts(&["y"])),
    ]
}

async fn check(bench: &Bench, filter: Filter) {
    let all = all_jobs(&*bench.store).await;
    let expected: Vec<i64> = all.iter().filter(|job| filter.passes(job)).map(|job| job.id.seq).collect();
    let page = bench.store.list_jobs(&filter, None, 100).await.unwrap();
    assert_eq!(page.jobs.iter().map(|job| job.id.seq).collect::<Vec<_>>(), expected, "{filter:?}");
    assert_eq!(page.next, None);
}

async fn a_list_lets_through_what_the_filter_passes(bench: Bench) {
    use Comparison::*;
    some_jobs(&bench).await;
    for (field, values) in values(&bench) {
        for value in values {
            for comparison in [Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual] {
                let is = Filter::Is(field.clone(), comparison, value.clone());
                check(&bench, is.clone()).await;
                check(&bench, Filter::Not(Box::new(is.clone()))).await;
                let urgent = Filter::Is(Field::Class, Equal, Value::Class(Class::Urgent));
                check(&bench, Filter::Any(vec![is.clone(), urgent.clone()])).await;
                check(&bench, Filter::All(vec![is, Filter::Not(Box::new(urgent))])).await;
            }
        }
    }
    check(&bench, Filter::Any(vec![])).await;
}

async fn a_filter_is_not_a_way_into_the_query(bench: Bench) {
    some_jobs(&bench).await;
    let hostile = "x' or 1=1; drop table job; -- ?";
    let text = Value::Text(hostile.to_owned());
    check(&bench, Filter::Is(Field::Label(hostile.to_owned()), Comparison::Equal, text.clone())).await;
    check(&bench, Filter::Is(Field::Key, Comparison::NotEqual, text)).await;
    assert_eq!(all_jobs(&*bench.store).await.len(), 7);
}

//! The call log: what was seen of a call comes back, and a list of calls lets through what the filter passes.

use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::model::call::{Call, Ending, Lane};
use tidegate::model::call_log::{Bodies, Kept, Seen};
use tidegate::model::filter::{Comparison, Field, Filter, Value};
use tidegate::model::flow::Class;
use tidegate::model::id::CallId;
use tidegate::model::job::NewJob;
use tidegate::model::name::Account;
use tidegate::store::*;

use super::factory::{Bench, job};

suite!(
    what_was_seen_of_a_call_comes_back,
    a_list_of_calls_lets_through_what_the_filter_passes,
    a_list_of_calls_is_paged_newest_first,
    a_selective_list_looks_at_a_bounded_window_and_says_where_to_go_on,
);

fn seen(ms: u64, bodies: bool) -> Seen {
    let kept = |text: &str| Kept { text: text.to_owned(), bytes: 7, cut: text.is_empty() };
    Seen {
        latency: Duration::from_micros(ms * 1_000 + 999),
        headers: vec![("retry-after".into(), "it's \"7\"".into()), ("ratelimit".into(), "r=1".into())],
        bodies: bodies.then(|| Bodies { request: kept("{\"a\":\"\\u0000 ключ\"}"), answer: kept("") }),
    }
}

/// Calls of all endings, the last one open.
async fn some_calls(bench: &mut Bench) -> Vec<CallId> {
    let other = NewJob { account: Account::new("a").unwrap(), ..job("0") };
    let flows = [bench.add(job("1")).await, bench.add(other.clone()).await];
    for n in 2..6 {
        bench.add(job(&n.to_string())).await;
    }
    let mut ids = Vec::new();
    let ends = [
        (Ending::Answered, Some(200), Some(seen(5, true))),
        (Ending::Answered, Some(503), Some(seen(80, false))),
        (Ending::Lost, None, Some(Seen { headers: Vec::new(), ..seen(30_000, false) })),
        (Ending::NotSent, None, None),
    ];
    for (n, (ending, status, seen)) in ends.into_iter().enumerate() {
        let lane = if n == 1 { Lane::Batch } else { Lane::Single };
        let flow = bench.job(flows[0]).await.flow;
        let call = bench.begin(Begin { lane, ..bench.take(flow, Class::Normal, 1) }).await.remove(0);
        bench.pass(Duration::from_secs(1));
        let outcomes = vec![(call.jobs[0].id.seq, Next::Delivered)];
        bench.finish(FinishCall { ending, status, seen, ..bench.end(call.id, outcomes) }).await;
        ids.push(call.id);
    }
    let flow = bench.job(flows[1]).await.flow;
    let open = Begin { account: other.account, ..bench.take(flow, Class::Normal, 1) };
    ids.push(bench.begin(open).await.remove(0).id);
    ids
}

async fn what_was_seen_of_a_call_comes_back(mut bench: Bench) {
    let ids = some_calls(&mut bench).await;
    let first = bench.store.call(ids[0]).await.unwrap().unwrap();
    assert_eq!(first.seen, Some(seen(5, true)));
    assert_eq!(bench.store.calls(&ids).await.unwrap()[0].seen, first.seen);
    let of = |call: &Call| (call.id, call.seen.clone());
    let page = bench.store.list_calls(&Filter::everything(), None, 10, true).await.unwrap();
    let full: Vec<_> = page.calls.iter().map(of).collect();
    let lost = Seen { headers: Vec::new(), ..seen(30_000, false) };
    assert_eq!(
        full,
        [
            (ids[4], None),
            (ids[3], None),
            (ids[2], Some(lost)),
            (ids[1], Some(seen(80, false))),
            (ids[0], Some(seen(5, true)))
        ]
    );
    let page = bench.store.list_calls(&Filter::everything(), None, 10, false).await.unwrap();
    assert_eq!(page.calls.last().map(of), Some((ids[0], Some(seen(5, false)))));
}

async fn check(bench: &Bench, all: &[Call], filter: Filter) {
    let expected: Vec<CallId> = all.iter().filter(|call| filter.passes_call(call)).map(|call| call.id).collect();
    let page = bench.store.list_calls(&filter, None, 100, false).await.unwrap();
    assert_eq!(page.calls.iter().map(|call| call.id).collect::<Vec<_>>(), expected, "{filter:?}");
    assert_eq!(page.next, None);
}

async fn a_list_of_calls_lets_through_what_the_filter_passes(mut bench: Bench) {
    use Comparison::*;
    let ids = some_calls(&mut bench).await;
    let mut all = bench.store.calls(&ids).await.unwrap();
    all.reverse();
    let begun = bench.now + Duration::ZERO;
    let texts = |all: &[&str]| all.iter().map(|s| Value::Text((*s).to_owned())).collect::<Vec<_>>();
    let fields = [
        (Field::Provider, texts(&["crm", "a", "it's"])),
        (Field::Operation, texts(&["sync", "z"])),
        (Field::Account, texts(&["", "a"])),
        (Field::Lane, Lane::ALL.map(Value::Lane).to_vec()),
        (Field::Ending, Ending::ALL.map(Value::Ending).to_vec()),
        (Field::Status, vec![Value::Number(200), Value::Number(503), Value::Text("x".into())]),
        (Field::Latency, vec![Value::Number(5), Value::Number(6), Value::Number(30_000)]),
        (Field::BeginTime, vec![Value::Time(begun), Value::Time(Timestamp(0))]),
        (Field::EndTime, vec![Value::Time(begun)]),
        // Calls have no such fields: nothing passes.
        (Field::Key, texts(&["a"])),
        (Field::Label("team".into()), texts(&["x"])),
    ];
    let mut passed = 0;
    for (field, values) in fields {
        for value in values {
            for comparison in [Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual] {
                let is = Filter::Is(field.clone(), comparison, value.clone());
                passed += all.iter().filter(|call| is.passes_call(call)).count();
                check(&bench, &all, is.clone()).await;
                check(&bench, &all, Filter::Not(Box::new(is.clone()))).await;
                let batch = Filter::Is(Field::Lane, Equal, Value::Lane(Lane::Batch));
                check(&bench, &all, Filter::Any(vec![is, batch])).await;
            }
        }
    }
    assert!(passed > 50, "the filters let something through");
}

async fn a_list_of_calls_is_paged_newest_first(mut bench: Bench) {
    let mut ids = some_calls(&mut bench).await;
    ids.reverse();
    let (mut listed, mut before) = (Vec::new(), None);
    loop {
        let page = bench.store.list_calls(&Filter::everything(), before, 2, false).await.unwrap();
        assert!(page.calls.len() <= 2);
        listed.extend(page.calls.iter().map(|call| call.id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(listed, ids);
}

async fn a_selective_list_looks_at_a_bounded_window_and_says_where_to_go_on(bench: Bench) {
    let old = bench.add(NewJob { account: Account::new("a").unwrap(), ..job("1") }).await;
    let flow = bench.job(old).await.flow;
    let take = bench.take(flow, Class::Normal, 1);
    let wanted = bench.begin(Begin { account: Account::new("a").unwrap(), ..take.clone() }).await.remove(0).id;
    let bare = Begin { takes: Vec::new(), bare: true, calls_max: u32::try_from(LIST_SCAN_MAX).unwrap(), ..take };
    bench.begin(bare).await;
    let filter = Filter::Is(Field::Account, Comparison::Equal, Value::Text("a".into()));
    let first = bench.store.list_calls(&filter, None, 10, false).await.unwrap();
    assert!(first.calls.is_empty() && first.next.is_some(), "ten thousand rows were looked at, and no more");
    let second = bench.store.list_calls(&filter, first.next, 10, false).await.unwrap();
    assert_eq!(second.calls.iter().map(|call| call.id).collect::<Vec<_>>(), [wanted]);
    assert_eq!(second.next, None);
}

//! The conformance suite of `tidegate::limiter::Limiter`: every limiter passes the same tests, beside the vectors.

use std::sync::Arc;
use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::limiter::{Answer, Limiter, Spend};
use tidegate::model::flow::Class;
use tidegate::model::provider::Limit;

use super::factory::{ask, ended, granted, window, wire};

/// Runs each test against every limiter.
macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod local {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::limits::factory::local()).await;
            })*
        }
        mod redis {
            $(#[tokio::test]
            async fn $name() {
                let server = crate::limits::factory::Shared::start().await;
                super::$name(std::sync::Arc::new(server.limiter().await)).await;
            })*
        }
    };
}

suite!(
    many_requests_of_one_call_are_decided_in_order,
    a_repeated_request_gets_its_first_answer_and_counts_once,
    a_repeated_refusal_stays_a_refusal,
    unsent_permits_return_at_once,
    a_view_shows_what_is_used_and_what_returns_when,
    a_limit_named_twice_is_paid_twice,
    calls_that_cost_differently_share_one_count,
    calls_of_several_providers_go_together,
    a_declaration_changes_its_kind,
    late_settles_only_delay,
);

const MINUTE: Duration = Duration::from_secs(60);

fn at(s: i64) -> Timestamp {
    Timestamp::from_secs(1_790_000_000 + s)
}

async fn many_requests_of_one_call_are_decided_in_order(limiter: Arc<dyn Limiter>) {
    let (w, c) = (window("w", 100, MINUTE), wire("c", 70));
    let mut asked = vec![ask(std::slice::from_ref(&w), 1); 50];
    asked.extend(vec![ask(&[w.clone(), c.clone()], 1); 60]);
    let answers = limiter.acquire(at(0), &asked).await.unwrap();
    assert_eq!(answers.len(), 110);
    let is_granted = |a: &Answer| matches!(a, Answer::Granted { count: 1, .. });
    assert!(answers[..100].iter().all(is_granted));
    assert!(!answers[100..].iter().any(is_granted));
    let settles: Vec<_> = answers[..100].iter().map(|a| ended(&granted(a, 1), 1, true)).collect();
    limiter.settle(at(1), &settles).await.unwrap();
    let views = limiter.peek(at(1), &[w, c]).await.unwrap();
    assert_eq!((views[0].used, views[0].in_flight, views[1].in_flight), (100, 0, 0));
}

async fn a_repeated_request_gets_its_first_answer_and_counts_once(limiter: Arc<dyn Limiter>) {
    let w = window("w", 5, MINUTE);
    let mut asked = ask(std::slice::from_ref(&w), 2);
    asked.request = 42;
    let first = limiter.acquire(at(0), &[asked.clone()]).await.unwrap();
    let second = limiter.acquire(at(1), &[asked]).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(limiter.peek(at(1), &[w]).await.unwrap()[0].in_flight, 2);
}

async fn a_repeated_refusal_stays_a_refusal(limiter: Arc<dyn Limiter>) {
    let w = window("w", 1, MINUTE);
    let permit = granted(&limiter.acquire(at(0), &[ask(std::slice::from_ref(&w), 1)]).await.unwrap()[0], 1);
    limiter.settle(at(0), &[ended(&permit, 1, true)]).await.unwrap();
    let mut asked = ask(std::slice::from_ref(&w), 1);
    asked.request = 7;
    let first = limiter.acquire(at(1), &[asked.clone()]).await.unwrap();
    assert_eq!(first[0], Answer::Wait { earliest: at(60), binder: w.key.clone(), soft: false });
    // A limiter whose server is elsewhere may put the time later by the way between, never earlier.
    let Answer::Wait { earliest, .. } = limiter.acquire(at(90), &[asked]).await.unwrap()[0] else { panic!("granted") };
    assert!(earliest >= at(60));
}

async fn unsent_permits_return_at_once(limiter: Arc<dyn Limiter>) {
    let spends = [window("w", 3, MINUTE), wire("c", 3)];
    let permit = granted(&limiter.acquire(at(0), &[ask(&spends, 9)]).await.unwrap()[0], 3);
    limiter.settle(at(1), &[ended(&permit, 2, false), ended(&permit, 1, true)]).await.unwrap();
    granted(&limiter.acquire(at(2), &[ask(&spends, 9)]).await.unwrap()[0], 2);
}

async fn a_view_shows_what_is_used_and_what_returns_when(limiter: Arc<dyn Limiter>) {
    let w = window("w", 300, MINUTE);
    for i in 0..200 {
        let permit = granted(&limiter.acquire(at(i / 4), &[ask(std::slice::from_ref(&w), 1)]).await.unwrap()[0], 1);
        limiter.settle(at(i / 4), &[ended(&permit, 1, true)]).await.unwrap();
    }
    let view = limiter.peek(at(50), &[w]).await.unwrap().remove(0);
    assert_eq!((view.used, view.in_flight, view.free), (200, 0, 100));
    assert_eq!(view.next_free_at, at(60));
    assert_eq!(view.returns.iter().map(|r| r.1).sum::<u32>(), 200);
    assert!(view.returns.is_sorted() && view.returns.last().unwrap().0 == at(109));
}

async fn a_limit_named_twice_is_paid_twice(limiter: Arc<dyn Limiter>) {
    let w = window("w", 5, MINUTE);
    granted(&limiter.acquire(at(0), &[ask(&[w.clone(), w.clone()], 9)]).await.unwrap()[0], 2);
    assert_eq!(limiter.peek(at(0), &[w]).await.unwrap()[0].in_flight, 4);
}

/// As a read costs a point and a write five: two declarations of one name and window, asked for in one frame.
async fn calls_that_cost_differently_share_one_count(limiter: Arc<dyn Limiter>) {
    let read = window("points", 10, MINUTE);
    let write = Spend::new(read.key.clone(), Arc::new(Limit { cost: 5, ..Limit::clone(&read.limit) }));
    let asks = [
        ask(std::slice::from_ref(&read), 1),
        ask(std::slice::from_ref(&write), 9),
        ask(std::slice::from_ref(&read), 9),
    ];
    let answers = limiter.acquire(at(0), &asks).await.unwrap();
    let permits = [(0, 1), (1, 1), (2, 4)].map(|(which, calls)| granted(&answers[which], calls));
    assert_eq!(limiter.peek(at(0), std::slice::from_ref(&read)).await.unwrap()[0].in_flight, 10);
    limiter.settle(at(1), &[ended(&permits[0], 1, true), ended(&permits[1], 1, true)]).await.unwrap();
    let view = limiter.peek(at(1), &[read]).await.unwrap().remove(0);
    assert_eq!((view.used, view.in_flight), (6, 4));
    assert!(matches!(limiter.acquire(at(2), &[ask(&[write], 1)]).await.unwrap()[0], Answer::Wait { .. }));
}

async fn calls_of_several_providers_go_together(limiter: Arc<dyn Limiter>) {
    let w = window("w", 2, MINUTE);
    let none = ask(&[], 4);
    let answers = limiter.acquire(at(0), &[ask(std::slice::from_ref(&w), 1), none, ask(&[w], 1)]).await.unwrap();
    granted(&answers[0], 1);
    granted(&answers[1], 4);
    granted(&answers[2], 1);
}

async fn a_declaration_changes_its_kind(limiter: Arc<dyn Limiter>) {
    granted(&limiter.acquire(at(0), &[ask(&[window("x", 3, MINUTE)], 9)]).await.unwrap()[0], 3);
    granted(&limiter.acquire(at(1), &[ask(&[wire("x", 2)], 9)]).await.unwrap()[0], 2);
    let refused = limiter.acquire(at(2), &[ask(&[wire("x", 2)], 9)]).await.unwrap().remove(0);
    assert!(matches!(refused, Answer::Wait { soft: true, .. }));
}

async fn late_settles_only_delay(limiter: Arc<dyn Limiter>) {
    let w = [window("w", 1, MINUTE)];
    let mut asked = ask(&w, 1);
    asked.class = Class::Urgent;
    let permit = granted(&limiter.acquire(at(0), &[asked.clone()]).await.unwrap()[0], 1);
    limiter.settle(at(500), &[ended(&permit, 1, true)]).await.unwrap();
    let Answer::Wait { earliest, soft, .. } = limiter.acquire(at(501), &[asked]).await.unwrap().remove(0) else {
        panic!("the answer came at 500")
    };
    assert_eq!((earliest, soft), (at(560), false));
}

//! Pushes of records in every store, where one that was sent before could be taken for the one to send now.

use super::*;

suite!(a_record_that_was_forgotten_is_pushed_anew, a_push_under_another_declaration_is_refused_by_name);

fn pushed(id: &str, json: &str) -> RecordWrite {
    RecordWrite { push: orders().push, ..write(id, Some(json)) }
}

/// Put, given up, deleted, forgotten: the record is at version 1 again, and its first job is still kept.
async fn a_record_that_was_forgotten_is_pushed_anew(mut bench: Bench) {
    for (id, again) in [("a", r#"{"status":"open"}"#), ("b", r#"{"status":"paid"}"#)] {
        let first = bench.write(pushed(id, r#"{"status":"open"}"#)).await.unwrap().push.unwrap();
        let call = bench.claim(first).await;
        bench.finish(bench.end(call, vec![(first.seq, Next::Dead)])).await;
        bench.write(write(id, None)).await.unwrap();
        bench.pass(Duration::from_secs(1));
        let forget = RecordOp::Forget { collection: name(), before: bench.now, limit: 10 };
        assert_eq!(bench.records(vec![forget]).await, [Ok(RecordDone::Count(1))]);
        let written = bench.write(pushed(id, again)).await.unwrap();
        assert_eq!((written.changed, written.record.version), (true, 1), "{id}");
        let second = written.push.unwrap_or_else(|| panic!("the new record {id} is pushed"));
        assert_ne!(second, first, "{id}");
        assert_eq!((bench.state(first).await, bench.state(second).await), (State::Dead, State::Waiting), "{id}");
        assert_eq!(&*bench.job(second).await.payload, again);
        let push = RecordOp::Push { collection: name(), id: key(id), rule: orders().push.unwrap() };
        assert_eq!(bench.records(vec![push]).await, [Ok(RecordDone::Pushed(Some(second)))], "{id}");
    }
}

async fn a_push_under_another_declaration_is_refused_by_name(bench: Bench) {
    let first = bench.write(pushed("a", r#"{"status":"open"}"#)).await.unwrap().push.unwrap();
    let other =
        PushRule { account: AccountRule::Fixed(Account::new("eu").unwrap()), ..(*orders().push.unwrap()).clone() };
    let push = |rule| RecordOp::Push { collection: name(), id: key("a"), rule };
    let done = bench.records(vec![push(Arc::new(other)), push(orders().push.unwrap())]).await;
    assert_eq!(done, [Err(Refusal::KeyReused { first }), Ok(RecordDone::Pushed(Some(first)))]);
}

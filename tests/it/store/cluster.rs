//! Several daemons on one database: the same keys, the same idempotency keys, the same ready jobs at the same time; leases
//! and their fences; news of each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tidegate::model::call::{Ending, Lane};
use tidegate::model::flow::Class;
use tidegate::model::id::{CallId, FlowId, JobId};
use tidegate::model::job::{Coalesce, NewJob};
use tidegate::model::name::{Account, IdempotencyKey, ProviderName};
use tidegate::model::shard::{Hold, SHARDS, shard_of};
use tidegate::model::state::State;
use tidegate::store::leases::Leases;
use tidegate::store::postgres::PgStore;
use tidegate::store::*;
use tokio::sync::Mutex;

use super::factory::{Bench, START, all_jobs, audit, held_by, job, keyed};
use crate::support::servers::Database;

fn crm() -> ProviderName {
    ProviderName::new("crm").unwrap()
}

/// What everybody saw.
#[derive(Default)]
struct Seen {
    /// By idempotency key.
    firsts: BTreeMap<usize, BTreeSet<JobId>>,
    created: usize,
    begun: HashMap<i64, Vec<CallId>>,
}

const ROUNDS: usize = 60;
const JOBS: usize = 20;
const KEYS: usize = 40;

/// One of a small world of jobs: the same number is the same content.
fn of_number(n: usize) -> NewJob {
    let rule = [Coalesce::Never, Coalesce::Replace, Coalesce::Merge][n % 3];
    let payload = format!("{{\"n\":{n}}}");
    let mut new = if n.is_multiple_of(4) { job(&payload) } else { keyed(&format!("k{}", n % KEYS), &payload) };
    new.coalesce = rule;
    new
}

async fn enqueue(store: Arc<PgStore>, seen: Arc<Mutex<Seen>>, who: usize) {
    for round in 0..ROUNDS {
        let numbers = (0..JOBS).map(|n| (round * 7 + n * 3 + who) % 200);
        let named = numbers.enumerate().map(|(at, n)| (n, at % 5 == 0));
        let wanted: Vec<(usize, bool)> = named.collect();
        let enqueues = wanted.iter().map(|&(n, named)| {
            let key = named.then(|| IdempotencyKey::new(format!("i{n}")).unwrap());
            NewJob { idempotency_key: key, ..of_number(n) }
        });
        let batch = Batch { now: START, steady: START, enqueues: enqueues.collect(), ..Batch::default() };
        let done = store.commit(batch).await.unwrap();
        let mut seen = seen.lock().await;
        for (enqueued, (n, named)) in done.enqueues.into_iter().zip(wanted) {
            let enqueued = enqueued.unwrap();
            seen.created += usize::from(enqueued.how == Accepted::Created);
            if named {
                seen.firsts.entry(n).or_default().insert(enqueued.id);
            }
        }
    }
}

/// Claims and finishes until the enqueuers are done and nothing is left.
async fn work(store: Arc<PgStore>, seen: Arc<Mutex<Seen>>, enqueuing: Arc<AtomicUsize>, lane: Lane) {
    let bench = Bench::over_shared(store.clone());
    let mut open: Vec<(CallId, Vec<i64>)> = Vec::new();
    loop {
        let last_round = enqueuing.load(Ordering::SeqCst) == 0;
        let flows = store.flows(FlowId(0), 100).await.unwrap();
        if last_round && flows.is_empty() && open.is_empty() {
            return;
        }
        let finishes = open
            .drain(..)
            .map(|(call, jobs)| bench.end(call, jobs.into_iter().map(|job| (job, Next::Delivered)).collect()));
        let finishes: Vec<FinishCall> = finishes.collect();
        let begins = flows.iter().map(|flow| Begin {
            operation: flow.key.operation.clone(),
            lane,
            ..bench.take(flow.id, Class::Normal, 15)
        });
        let begins: Vec<Begin> = begins.collect();
        let batch = Batch { now: START, steady: START, finishes, begins, ..Batch::default() };
        let done = store.commit(batch).await.unwrap();
        assert!(done.finishes.iter().all(|done| done.applied && done.stale.is_empty()));
        let mut seen = seen.lock().await;
        for call in done.begins.iter().flat_map(|begun| &begun.calls) {
            let jobs: Vec<i64> = call.jobs.iter().map(|job| job.id.seq).collect();
            for seq in &jobs {
                seen.begun.entry(*seq).or_default().push(call.id);
            }
            open.push((call.id, jobs));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_daemons_on_the_same_keys_lose_nothing_and_repeat_nothing() {
    let database = Database::new().await;
    let stores = [Arc::new(database.open().await), Arc::new(database.open().await)];
    let seen = Arc::new(Mutex::new(Seen::default()));
    let enqueuing = Arc::new(AtomicUsize::new(stores.len()));
    let mut tasks = tokio::task::JoinSet::new();
    for (who, store) in stores.iter().enumerate() {
        let (mine, seen_too, count) = (store.clone(), seen.clone(), enqueuing.clone());
        tasks.spawn(async move {
            enqueue(mine, seen_too, who).await;
            count.fetch_sub(1, Ordering::SeqCst);
        });
        let lane = [Lane::Single, Lane::Batch][who];
        tasks.spawn(work(store.clone(), seen.clone(), enqueuing.clone(), lane));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let seen = seen.lock().await;
    audit(&*stores[0]).await;
    let jobs = all_jobs(&*stores[1]).await;
    assert_eq!(jobs.len(), seen.created);
    assert!(jobs.len() > 500, "too few jobs to meet each other: {}", jobs.len());
    assert!(jobs.iter().all(|job| job.state == State::Delivered));
    // Each job went once.
    for job in &jobs {
        assert_eq!(seen.begun.get(&job.id.seq), Some(&job.calls), "job {}", job.id.seq);
        assert_eq!(job.calls.len(), 1);
    }
    // One answer per idempotency key, whoever asked.
    assert!(seen.firsts.len() > 30 && seen.firsts.values().all(|firsts| firsts.len() == 1));
    // The jobs of a key went in the order of their numbers.
    let mut keys: BTreeMap<String, Vec<(i64, CallId)>> = BTreeMap::new();
    for job in jobs.iter().filter(|job| job.key.is_some()) {
        keys.entry(job.key.as_ref().unwrap().to_string()).or_default().push((job.turn, job.calls[0]));
    }
    assert_eq!(keys.len(), KEYS * 3 / 4);
    for (key, mut went) in keys {
        went.sort_unstable();
        assert!(went.windows(2).all(|pair| pair[0].1 < pair[1].1), "{key}: {went:?}");
    }
}

#[tokio::test]
async fn a_stale_fence_begins_nothing() {
    let database = Database::new().await;
    let (a, b) = (Arc::new(database.open().await), Arc::new(database.open().await));
    let minute = Duration::from_secs(60);
    let bench = Bench::over_shared(a.clone());
    let id = bench.add(job("1")).await;
    let shard = shard_of(&Account::default(), 0);
    assert!(a.beat(a.daemon(), "a", minute).await.unwrap() && b.beat(b.daemon(), "b", minute).await.unwrap());
    let mine = a.claim(a.daemon(), &crm(), usize::from(SHARDS)).await.unwrap();
    assert_eq!(mine.len(), usize::from(SHARDS));
    let fence = mine.iter().find(|(s, _)| *s == shard).unwrap().1;
    // All are taken, and the owner lives.
    assert!(b.claim(b.daemon(), &crm(), 64).await.unwrap().is_empty());
    let mut conn = database.connect().await;
    sqlx::query("update daemon set heartbeat_until = 1 where name = 'a'").execute(&mut conn).await.unwrap();
    let taken = b.claim(b.daemon(), &crm(), 64).await.unwrap();
    assert_eq!(taken.len(), usize::from(SHARDS));
    let take = bench.take(bench.job(id).await.flow, Class::Normal, 1);
    assert!(bench.begin(held_by(Hold { shard, fence }, take.clone())).await.is_empty());
    assert!(bench.begin(held_by(Hold { shard, fence: 0 }, take.clone())).await.is_empty());
    // The late one learns of it with its next beat.
    assert!(!a.beat(a.daemon(), "a", minute).await.unwrap());
    assert!(a.owned(a.daemon()).await.unwrap().is_empty());
    let newer = taken.iter().find(|(s, _)| *s == shard).unwrap().1;
    assert!(newer > fence);
    let other = Bench::over_shared(b.clone());
    assert_eq!(other.begin(held_by(Hold { shard, fence: newer }, take)).await.len(), 1);
}

#[tokio::test]
async fn partitions_go_back_and_are_taken_by_one_alone() {
    let database = Database::new().await;
    let (a, b) = (Arc::new(database.open().await), Arc::new(database.open().await));
    // Without a heartbeat nothing is given out.
    assert!(a.claim(a.daemon(), &crm(), 5).await.unwrap().is_empty());
    for (store, name) in [(&a, "a"), (&b, "b")] {
        store.beat(store.daemon(), name, Duration::from_secs(60)).await.unwrap();
    }
    let crm = crm();
    let (x, y) = tokio::join!(a.claim(a.daemon(), &crm, 40), b.claim(b.daemon(), &crm, 40));
    let (x, y) = (x.unwrap(), y.unwrap());
    let all: BTreeSet<u16> = x.iter().chain(&y).map(|(shard, _)| *shard).collect();
    assert_eq!(all.len(), x.len() + y.len(), "a partition was given out twice");
    assert!(all.len() >= 40);
    let shards: Vec<u16> = x.iter().map(|(shard, _)| *shard).collect();
    a.release(a.daemon(), &crm, &shards).await.unwrap();
    // Not one's own: left alone.
    a.release(a.daemon(), &crm, &y.iter().map(|(shard, _)| *shard).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(b.owned(b.daemon()).await.unwrap().len(), y.len());
    let again = b.claim(b.daemon(), &crm, 64).await.unwrap();
    assert_eq!(again.len() + y.len(), 64);
    let before: HashMap<u16, i64> = x.into_iter().collect();
    assert!(again.iter().all(|(shard, fence)| before.get(shard).is_none_or(|old| fence > old)));
    let daemons = a.daemons().await.unwrap();
    let shown: Vec<_> = daemons.iter().map(|d| (d.name.as_str(), d.alive, d.leases.len())).collect();
    assert_eq!(shown, [("a", true, 0), ("b", true, 64)]);
}

#[tokio::test]
async fn daemons_hear_of_each_other_and_not_of_themselves() {
    let database = Database::new().await;
    let (a, b) = (Arc::new(database.open().await), Arc::new(database.open().await));
    let mut news = a.notices().await.unwrap().unwrap();
    let (mine, theirs) = (Bench::over_shared(a.clone()), Bench::over_shared(b.clone()));
    mine.add(job("1")).await;
    let id = theirs.add(NewJob { due_at: Some(START + Duration::from_secs(9)), ..job("2") }).await;
    let flow = theirs.job(id).await.flow;
    let Some(Notice::Changed(heard)) = news.recv().await else { panic!("expected news") };
    assert_eq!((heard.flows, heard.events, heard.due, heard.declarations), (vec![flow], true, true, false));
    let apply = Change::ApplyProvider { name: crm(), source: "x".into(), expect: None, actor: "me".into() };
    theirs.change(apply).await.unwrap();
    let Some(Notice::Changed(heard)) = news.recv().await else { panic!("expected news") };
    assert!(heard.declarations && heard.flows.is_empty());
    // Cut off: whatever was said meanwhile is made up for.
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query like \
               'LISTEN%'";
    sqlx::query(cut).execute(&mut database.connect().await).await.unwrap();
    assert_eq!(news.recv().await, Some(Notice::Everything));
    theirs.add(job("3")).await;
    assert!(matches!(news.recv().await, Some(Notice::Changed(_))));
}

#[tokio::test]
async fn a_slow_reader_of_news_is_told_to_look_at_everything() {
    let database = Database::new().await;
    let (a, b) = (Arc::new(database.open().await), Arc::new(database.open().await));
    let mut news = a.notices().await.unwrap().unwrap();
    for n in 0..300 {
        b.commit(Batch { now: START, enqueues: vec![job(&n.to_string())], ..Batch::default() }).await.unwrap();
    }
    let mut heard = 0;
    while news.recv().await.unwrap() != Notice::Everything {
        heard += 1;
    }
    assert!((200..300).contains(&heard), "{heard}");
}

/// A store that does not wait at all would be waited for in vain.
const WAITS_MAX: Duration = Duration::from_secs(20);

async fn somebody_waits_for_a_lock(conn: &mut PgConnection) {
    let asks = async {
        let waits = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        while sqlx::query(waits).fetch_optional(&mut *conn).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(WAITS_MAX, asks).await;
    assert!(waited.is_ok(), "expected the store to wait for the lock that this test holds; it went past it");
}

#[tokio::test]
async fn a_begin_waits_for_an_epoch_that_is_moving() {
    let database = Database::new().await;
    let store = Arc::new(database.open().await);
    let bench = Bench::over_shared(store.clone());
    let id = bench.add(job("1")).await;
    let flow = bench.job(id).await.flow;
    let mut conn = PgConnection::connect(&database.url()).await.unwrap();
    let mut moving = conn.begin().await.unwrap();
    sqlx::query("update meta set epoch = epoch + 1").execute(&mut *moving).await.unwrap();
    let begin = bench.begin(bench.take(flow, Class::Normal, 1));
    let both = async {
        tokio::join!(begin, async {
            // The begin cannot have been journaled under the old epoch: it is asked for while the new one is not there
            // yet.
            somebody_waits_for_a_lock(&mut moving).await;
            moving.commit().await.unwrap();
        })
    };
    let (begun, ()) = tokio::time::timeout(WAITS_MAX * 2, both).await.expect("a begin ends when the epoch has moved");
    assert!(begun.is_empty());
}

#[tokio::test]
async fn an_idempotency_key_that_another_daemon_is_taking_is_waited_for() {
    let database = Database::new().await;
    let bench = Bench::over_shared(Arc::new(database.open().await));
    let first = bench.add(job("1")).await;
    let mut conn = database.connect().await;
    let mut taking = conn.begin().await.unwrap();
    let take = "insert into idempotency values ('', 'x', decode(repeat('00', 32), 'hex'), $1, $2)";
    sqlx::query(take).bind(first.seq).bind(first.created_at.0).execute(&mut *taking).await.unwrap();
    let mine = NewJob { idempotency_key: Some(IdempotencyKey::new("x").unwrap()), ..job("2") };
    let both = async {
        tokio::join!(bench.enqueue(vec![job("3"), mine]), async {
            somebody_waits_for_a_lock(&mut taking).await;
            taking.commit().await.unwrap();
        })
    };
    let (answers, ()) = tokio::time::timeout(WAITS_MAX * 2, both).await.expect("an enqueue ends when the key is free");
    // The whole batch began anew and saw what the other had done.
    assert!(answers[0].is_ok());
    assert_eq!(answers[1], Err(Refusal::KeyReused { first }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sweepers_of_three_daemons_at_once_do_nothing_twice() {
    let database = Database::new().await;
    let stores = [database.open().await, database.open().await, database.open().await].map(Arc::new);
    let mut bench = Bench::over_shared(stores[0].clone());
    // Left behind: calls of a daemon that died, jobs that are due, jobs that were delivered long ago.
    let sent: Vec<NewJob> = (0..60).map(|n| keyed(&format!("sent-{n}"), "1")).collect();
    let first = bench.enqueue(sent).await.remove(0).unwrap().id;
    let calls = bench.begin(bench.take(bench.job(first).await.flow, Class::Normal, 60)).await;
    assert_eq!(calls.len(), 60);
    let (old, crashed) = calls.split_at(20);
    let ended = |call: &BegunCall, next| bench.end(call.id, vec![(call.jobs[0].id.seq, next)]);
    let finishes = old.iter().map(|call| ended(call, Next::Delivered)).collect();
    bench.commit(Batch { finishes, ..bench.batch() }).await;
    let due = |n: usize| NewJob { due_at: Some(START + Duration::from_secs(1)), ..keyed(&format!("due-{n}"), "1") };
    bench.enqueue((0..200).map(due).collect()).await;
    bench.pass(Duration::from_secs(100));
    let wait = Next::Wait { due_at: bench.now, why: Again::Crashed };
    let finishes: Vec<FinishCall> =
        crashed.iter().map(|call| bench.end(call.id, vec![(call.jobs[0].id.seq, wait)])).collect();
    let finishes: Vec<FinishCall> =
        finishes.into_iter().map(|call| FinishCall { ending: Ending::Crashed, ..call }).collect();
    let before = bench.now - Duration::from_secs(50);
    let (promote, prune) = (Change::PromoteDue { limit: 70 }, |limit| Change::Prune {
        finished_before: before,
        dead_before: before,
        calls_before: before,
        events_before: before,
        limit,
    });
    let mut sweeps = tokio::task::JoinSet::new();
    for store in stores.clone() {
        let (now, finishes, promote, prune) = (bench.now, finishes.clone(), promote.clone(), prune(7));
        sweeps.spawn(async move {
            let (mut applied, mut promoted) = (0, 0);
            // As a sweeper does: call by call, and in bounded steps until nothing is left.
            for call in finishes {
                let batch = Batch { now, steady: now, finishes: vec![call], ..Batch::default() };
                applied += usize::from(store.commit(batch).await.unwrap().finishes[0].applied);
            }
            for _ in 0..10 {
                let changes = vec![promote.clone(), prune.clone()];
                let done = store.commit(Batch { now, steady: now, changes, ..Batch::default() }).await.unwrap();
                let Ok(Changed::Count(moved)) = done.changes[0] else { panic!("{:?}", done.changes) };
                promoted += moved;
            }
            (applied, promoted)
        });
    }
    let (mut applied, mut promoted) = (0, 0);
    while let Some(done) = sweeps.join_next().await {
        let (calls, jobs) = done.unwrap();
        (applied, promoted) = (applied + calls, promoted + jobs);
    }
    assert_eq!((applied, promoted), (40, 200));
    // Those that were pruned stay in the counts.
    let counts = stores[1].flow(FlowId(1)).await.unwrap().unwrap().counts;
    assert_eq!((counts.ready_all(), counts.delivered, counts.accepted()), (240, 20, 260));
    let jobs = all_jobs(&*stores[2]).await;
    assert_eq!(jobs.len(), 240, "the delivered ones are gone, and nothing else");
    assert!(jobs.iter().all(|job| job.state == State::Waiting));
    // Judged once: a second judgement would count another crash.
    let crashes: u32 = jobs.iter().map(|job| job.crashes).sum();
    assert_eq!((crashes, jobs.iter().map(|job| job.crashes).max()), (40, Some(1)));
}

#[tokio::test]
async fn partitions_that_are_given_back_are_news() {
    let database = Database::new().await;
    let (a, b) = (Arc::new(database.open().await), Arc::new(database.open().await));
    a.beat(a.daemon(), "a", Duration::from_secs(60)).await.unwrap();
    let shards: Vec<u16> = a.claim(a.daemon(), &crm(), 9).await.unwrap().into_iter().map(|(shard, _)| shard).collect();
    let (mut news, mut own) = (b.notices().await.unwrap().unwrap(), a.notices().await.unwrap().unwrap());
    a.release(a.daemon(), &crm(), &shards).await.unwrap();
    assert_eq!(news.recv().await, Some(Notice::Changed(Touched { given_back: true, ..Touched::default() })));
    // What was nobody's is no news: the next thing heard is the job.
    a.release(a.daemon(), &crm(), &shards).await.unwrap();
    Bench::over_shared(b.clone()).add(job("1")).await;
    Bench::over_shared(a.clone()).add(job("2")).await;
    for news in [&mut own, &mut news] {
        let Some(Notice::Changed(heard)) = news.recv().await else { panic!("expected news") };
        assert!(heard.events && !heard.given_back, "{heard:?}");
    }
}

#[tokio::test]
async fn jobs_that_are_called_off_on_the_wire_are_news() {
    let database = Database::new().await;
    let (a, b) = (Arc::new(database.open().await), Arc::new(database.open().await));
    let bench = Bench::over_shared(a.clone());
    let calling = bench.add(job("1")).await;
    bench.claim(calling).await;
    let waiting = bench.add(job("2")).await;
    let mut news = b.notices().await.unwrap().unwrap();
    for (id, expected) in [(waiting, false), (calling, true)] {
        bench.commit(Batch { changes: vec![Change::CancelJobs { jobs: vec![id] }], ..bench.batch() }).await;
        let Some(Notice::Changed(heard)) = news.recv().await else { panic!("expected news") };
        assert_eq!(heard.called_off, expected, "{heard:?}");
    }
}

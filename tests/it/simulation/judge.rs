//! What must be true of every history, whatever happened in it: P2 to P7.

use std::collections::{BTreeMap, BTreeSet};

use tidegate::engine::Handle;
use tidegate::model::filter::{Comparison, Field, Filter, Value};
use tidegate::model::state::State;
use tidegate::store::memory::MemoryStore;
use tidegate::store::{Change, Decision, Store};

use super::world::Arrival;
use super::{BATCH_MAX, History, PER, SINGLE_MAX};

/// Unknown jobs block their key until somebody decides; here somebody gives them up.
pub async fn give_up_unknown(life: &Handle, history: &mut History) {
    let unknown = Filter::Is(Field::State, Comparison::Equal, Value::State(State::Unknown));
    let page = life.store().list_jobs(&unknown, None, 1_000).await.expect("the memory store answers");
    if !page.jobs.is_empty() {
        let jobs = page.jobs.iter().map(|j| j.id).collect();
        let _ = std::fmt::Write::write_fmt(&mut history.log, format_args!("gave up {} unknown\n", page.jobs.len()));
        life.change(Change::ResolveJobs { jobs, decision: Decision::Dead })
            .await
            .expect("unknown jobs can be given up");
    }
}

pub async fn judge(history: &History, arrivals: &[Arrival], store: &MemoryStore) -> Vec<String> {
    let mut faults = Vec::new();
    conservation(history, store, &mut faults).await;
    windows(arrivals, &mut faults);
    order(arrivals, &mut faults);
    fates(history, arrivals, store, &mut faults).await;
    faults
}

/// P2: what was accepted is somewhere.
async fn conservation(history: &History, store: &MemoryStore, faults: &mut Vec<String>) {
    let accepted: u64 = store.tallies().await.unwrap().iter().map(|t| t.counts.accepted()).sum();
    let created = history.acked.iter().filter(|a| !a.coalesced).count() as u64;
    // What was committed but not acknowledged because the daemon died may be there as well.
    if accepted < created {
        faults.push(format!("P2: {created} jobs were acknowledged as created, the store knows {accepted}"));
    }
}

/// P5: no interval of the window's length holds more arrivals than the limit, refused ones included.
fn windows(arrivals: &[Arrival], faults: &mut Vec<String>) {
    let mut logs: BTreeMap<(&str, &str), Vec<i64>> = BTreeMap::new();
    for a in arrivals {
        logs.entry((a.lane, a.account.as_str())).or_default().push(a.at.0);
    }
    let per = PER.as_micros() as i64;
    for ((lane, account), times) in logs {
        let max = if lane == "batch" { BATCH_MAX } else { SINGLE_MAX };
        let over = (max..times.len()).find(|&i| times[i] - times[i - max] < per);
        if let Some(i) = over {
            faults.push(format!("P5: more than {max} arrivals of {lane}/{account} within {PER:?}, up to {}", times[i]));
        }
    }
}

/// P7: contents of a record arrive in order; going back is a repeat of the last one only.
fn order(arrivals: &[Arrival], faults: &mut Vec<String>) {
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for a in arrivals {
        for (record, n) in &a.records {
            let seen = newest.entry(record).or_insert(0);
            if n < seen {
                faults.push(format!("P7: {record} n={n} arrived at {} after n={seen}", a.at.0));
            }
            *seen = (*seen).max(*n);
        }
    }
}

async fn fates(history: &History, arrivals: &[Arrival], store: &MemoryStore, faults: &mut Vec<String>) {
    let took_effect = |record: &str, n: u64| {
        arrivals.iter().any(|a| {
            !a.refused && !a.failed.iter().any(|f| f == record) && a.records.iter().any(|r| r.0 == record && r.1 == n)
        })
    };
    // The last content that each job was acknowledged with; earlier ones were replaced by it.
    let mut last: BTreeMap<i64, &super::Acked> = BTreeMap::new();
    for a in &history.acked {
        let slot = last.entry(a.id.seq).or_insert(a);
        if a.n > slot.n {
            *slot = a;
        }
    }
    let cancelled: BTreeSet<i64> = history.cancelled.iter().map(|id| id.seq).collect();
    for (seq, acked) in last {
        let Some(job) = store.jobs(&[seq]).await.unwrap().pop() else {
            faults.push(format!("P1: acknowledged job {} is gone", acked.id));
            continue;
        };
        match job.state {
            State::Delivered if !took_effect(&acked.record, content_of(&job.payload)) => {
                faults.push(format!(
                    "lost: {} {} n={} is delivered, the provider never took it",
                    acked.id, acked.record, acked.n
                ));
            }
            State::Delivered if content_of(&job.payload) < acked.n => {
                faults.push(format!(
                    "lost: {} was acknowledged with n={} and delivered n={}",
                    acked.id,
                    acked.n,
                    content_of(&job.payload)
                ));
            }
            _ => {}
        }
        // P3: nothing of a job is sent after its acknowledged cancellation; P4 and P6: what may not be repeated
        // arrives once unless it was refused.
        if acked.operation == "add" {
            let same = |a: &&Arrival| !a.refused && a.records.iter().any(|r| r.0 == acked.record && r.1 == acked.n);
            let times = arrivals.iter().filter(same).count();
            if times > 1 {
                faults.push(format!(
                    "P6: addition {} {} n={} took effect {times} times",
                    acked.id, acked.record, acked.n
                ));
            }
        }
        if cancelled.contains(&seq) && job.state != State::Cancelled {
            faults.push(format!("P3: {} was acknowledged as cancelled and is {}", acked.id, job.state));
        }
    }
}

fn content_of(payload: &str) -> u64 {
    serde_json::from_str::<serde_json::Value>(payload).unwrap()["n"].as_u64().unwrap()
}

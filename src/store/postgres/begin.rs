//! Journaling calls and claiming their jobs: one look at the ready index for all begins of a commit, one claim, one entry
//! in the journal for all. Next: `counts`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::arrays::text;
use super::row::{self, Columns};
use super::work::{Step, Work};
use super::{error, sql};
use crate::model::call::{Lane, LimitKey};
use crate::model::flow::{Class, Flow};
use crate::model::id::{CallId, FlowId};
use crate::model::job::ClaimedJob;
use crate::model::state::Event;
use crate::store::packed;
use crate::store::rules::{Core, Stand};
use crate::store::{Begin, Begun, BegunCall, Take};

/// A begin, and those of its takes that may be done.
type Allowed<'b> = (&'b Begin, Vec<Take>);
/// A job picked for a begin, and what its call will know of it.
type Ready = (Core, ClaimedJob);
/// Locked jobs that no begin has taken yet, oldest turn first.
type Candidates = BTreeMap<(FlowId, Class), VecDeque<Ready>>;

impl Work<'_> {
    pub(super) async fn begin_all(&mut self, begins: &[Begin]) -> Step<Vec<Begun>> {
        if begins.is_empty() {
            return Ok(Vec::new());
        }
        let (allowed, epoch) = self.allowed(begins).await?;
        let flows = self.flows_to_take(&allowed).await?;
        let (mut candidates, numbers) = self.candidates(&allowed, &flows).await?;
        let mut picked: Vec<(&Begin, Vec<Vec<Ready>>)> = Vec::with_capacity(begins.len());
        for (begin, takes) in allowed {
            let calls = match begin.bare {
                true if begin.permit.epoch < epoch => Vec::new(),
                true => vec![Vec::new(); begin.calls_max as usize],
                false => per_call(begin, pick(begin, &takes, &flows, &mut candidates)),
            };
            picked.push((begin, calls));
        }
        self.begin_calls(picked, numbers).await
    }

    /// What each begin may take: under the present epoch, and under the present fences of the partitions. Both hold until
    /// the commit. And the epoch.
    async fn allowed<'b>(&mut self, begins: &'b [Begin]) -> Step<(Vec<Allowed<'b>>, i64)> {
        let holds = || begins.iter().flat_map(|b| b.takes.iter().map(|take| (b.provider.as_str(), take.hold)));
        let partitions: BTreeSet<(&str, i64)> = holds().map(|(p, hold)| (p, i64::from(hold.shard))).collect();
        let (mut epoch, mut fences) = self.fences(&partitions).await?;
        let on_record = fences.values().map(BTreeMap::len).sum::<usize>();
        if on_record < partitions.len() && holds().any(|(_, hold)| hold.fence == 0) {
            // Nobody ever claimed them. Put them on record, so that there is something to lock.
            let (providers, shards): (Vec<&str>, Vec<i64>) = partitions.iter().copied().unzip();
            sqlx::query(sql::MAKE_PARTITIONS).bind(providers).bind(shards).execute(&mut *self.conn).await?;
            (epoch, fences) = self.fences(&partitions).await?;
        }
        let allowed = begins.iter().map(|begin| {
            let fences = fences.get(begin.provider.as_str());
            let fence = |take: &Take| fences.and_then(|of| of.get(&i64::from(take.hold.shard)));
            let ours = |take: &&Take| fence(take) == Some(&take.hold.fence);
            let current = begin.permit.epoch >= epoch;
            (begin, begin.takes.iter().filter(|_| current).filter(ours).copied().collect())
        });
        Ok((allowed.collect(), epoch))
    }

    /// The epoch; and the fences of those partitions that are on record, by provider and shard.
    async fn fences(
        &mut self,
        partitions: &BTreeSet<(&str, i64)>,
    ) -> Step<(i64, BTreeMap<String, BTreeMap<i64, i64>>)> {
        let (providers, shards): (Vec<&str>, Vec<i64>) = partitions.iter().copied().unzip();
        let (mut epoch, mut fences) = (i64::MAX, BTreeMap::<String, BTreeMap<i64, i64>>::new());
        for row in sqlx::query(sql::FENCES).bind(providers).bind(shards).fetch_all(&mut *self.conn).await? {
            let mut columns = Columns::of(&row);
            epoch = columns.int()?;
            if let Some(provider) = columns.opt_str()? {
                let of = fences.entry(provider.to_owned()).or_default();
                of.insert(columns.int()?, columns.int()?);
            }
        }
        Ok((epoch, fences))
    }

    /// The flows that the begins name, held or not by a state of their run that holds until the commit.
    async fn flows_to_take(&mut self, allowed: &[Allowed<'_>]) -> Step<BTreeMap<FlowId, Flow>> {
        let ids: BTreeSet<i64> = allowed.iter().flat_map(|(_, takes)| takes).map(|take| take.flow.0).collect();
        let mut flows = BTreeMap::new();
        let mut unknown: Vec<i64> = Vec::new();
        for id in ids {
            // Without a run nothing can hold it, and its counters are not asked for here.
            match self.keys.of(FlowId(id)).filter(|key| key.run == 0) {
                Some(key) => {
                    self.flows.insert(FlowId(id), key.clone());
                    flows.insert(
                        FlowId(id),
                        Flow { id: FlowId(id), key, counts: Default::default(), held: false, version: 0 },
                    );
                }
                None => unknown.push(id),
            }
        }
        if unknown.is_empty() {
            return Ok(flows);
        }
        let ids = unknown;
        for flow in sqlx::query(sql::FLOWS_BY_ID).bind(ids).fetch_all(&mut *self.conn).await? {
            let flow = row::flow(&flow)?;
            self.keys.learn(flow.id, &flow.key);
            self.flows.insert(flow.id, flow.key.clone());
            flows.insert(flow.id, flow);
        }
        let runs = self.keep_runs(flows.values().map(|flow| flow.key.run).collect()).await?;
        for flow in flows.values_mut().filter(|flow| flow.key.run != 0) {
            flow.held = runs.get(&flow.key.run).is_none_or(|run| run.state.holds_jobs());
        }
        Ok(flows)
    }

    /// Locks as many ready jobs as the begins may take together, and draws a number for each that may have a call of its
    /// own.
    async fn candidates(
        &mut self,
        allowed: &[Allowed<'_>],
        flows: &BTreeMap<FlowId, Flow>,
    ) -> Step<(Candidates, Vec<CallId>)> {
        // How many, and whether on the single lane.
        let mut wanted: BTreeMap<(FlowId, Class), (i64, bool)> = BTreeMap::new();
        for (begin, takes) in allowed {
            let each = one_call_each(begin, takes);
            for take in takes.iter().filter(|take| may_take(begin, take, flows)) {
                let most = if begin.lane == Lane::Single { take.count.min(begin.calls_max) } else { take.count };
                let (sum, draws) = wanted.entry((take.flow, take.class)).or_insert((0, true));
                *sum = sum.saturating_add(i64::from(most));
                *draws &= each;
            }
        }
        wanted.retain(|_, (count, _)| *count > 0);
        let (mut candidates, mut numbers) = (Candidates::new(), Vec::new());
        if wanted.is_empty() {
            return Ok((candidates, numbers));
        }
        let ids: Vec<i64> = wanted.keys().map(|(flow, _)| flow.0).collect();
        let classes: Vec<i64> = wanted.keys().map(|(_, class)| *class as i64).collect();
        let (counts, draws): (Vec<i64>, Vec<i64>) =
            wanted.values().map(|(count, draws)| (*count, i64::from(*draws))).unzip();
        let places: Vec<(FlowId, Class)> = wanted.into_keys().collect();
        let claim = sqlx::query(sql::CLAIM).bind(ids).bind(classes).bind(counts).bind(draws);
        for row in claim.fetch_all(&mut *self.conn).await? {
            let mut columns = Columns::of(&row);
            let nth = columns.int()?;
            let place = usize::try_from(nth - 1).ok().and_then(|n| places.get(n));
            let place = *place.ok_or_else(|| error::strange("a position of the claim", nth))?;
            candidates.entry(place).or_default().push_back(row::ready_of(&mut columns, place.0, place.1)?);
            numbers.extend(columns.opt_int()?.map(CallId));
        }
        numbers.sort_unstable();
        Ok((candidates, numbers))
    }

    async fn begin_calls(&mut self, picked: Vec<(&Begin, Vec<Vec<Ready>>)>, mut ids: Vec<CallId>) -> Step<Vec<Begun>> {
        let count: usize = picked.iter().map(|(_, calls)| calls.len()).sum();
        if count > ids.len() {
            ids.extend(self.draw_calls(count - ids.len()).await?);
        }
        let mut ids = ids.into_iter();
        let mut all = Vec::with_capacity(picked.len());
        for (begin, calls) in picked {
            let mut begun = Begun { calls: Vec::with_capacity(calls.len()) };
            for jobs in calls {
                self.packer.section();
                let id = ids.next().ok_or_else(|| error::strange("a number for each call", count))?;
                let mut call = BegunCall { id, jobs: Vec::with_capacity(jobs.len()) };
                for (mut core, mut job) in jobs {
                    core.begin(id, self.now);
                    (job.attempts, job.first_sent_at) = (core.attempts, core.first_sent_at);
                    self.packer.changed(&core, Event::Begin, Some((id, None)));
                    self.count(core.flow, Some((Stand::Ready, core.class)), Some((Stand::Calling, core.class)));
                    call.jobs.push(job);
                }
                begun.calls.push(call);
            }
            all.push((begin, begun));
        }
        if count > 0 {
            self.journal(&all).await?;
        }
        Ok(all.into_iter().map(|(_, begun)| begun).collect())
    }

    /// Journals the calls and claims their jobs.
    async fn journal(&mut self, all: &[(&Begin, Begun)]) -> Step<()> {
        let calls = || all.iter().flat_map(|(begin, begun)| begun.calls.iter().map(move |call| (*begin, call)));
        let ints = |get: fn(&Begin) -> i64| -> Vec<i64> { calls().map(|(begin, _)| get(begin)).collect() };
        let ids: Vec<i64> = calls().map(|(_, call)| call.id.0).collect();
        let providers: Vec<&str> = calls().map(|(begin, _)| begin.provider.as_str()).collect();
        let operations: Vec<&str> = calls().map(|(begin, _)| begin.operation.as_str()).collect();
        let accounts: Vec<&str> = calls().map(|(begin, _)| begin.account.as_str()).collect();
        let mut spends: Vec<Option<String>> = Vec::with_capacity(ids.len());
        for (begin, begun) in all {
            let shared = spends_text(&begin.permit.spends);
            // Where limits count by key, every call spends something else.
            let own = |call: &BegunCall| spends_text(&begin.spends(&call.jobs));
            let of = |call| if begin.keyed.is_empty() { shared.clone() } else { own(call) };
            spends.extend(begun.calls.iter().map(of));
        }
        let jobs: Vec<Vec<u8>> = calls()
            .map(|(_, call)| packed::pack(&call.jobs.iter().map(|job| job.id.seq).collect::<Vec<_>>()))
            .collect();
        let (claimed, claimed_by): (Vec<i64>, Vec<i64>) =
            calls().flat_map(|(_, call)| call.jobs.iter().map(|job| (job.id.seq, call.id.0))).unzip();
        let begin = sqlx::query(sql::BEGIN_CALLS)
            .bind(ids)
            .bind(providers)
            .bind(operations)
            .bind(ints(|begin| begin.lane as i64))
            .bind(accounts)
            .bind(spends)
            .bind(ints(|begin| begin.permit.granted_at.0))
            .bind(ints(|begin| begin.permit.epoch))
            .bind(ints(|begin| begin.lease_until.0))
            .bind(self.now.0)
            .bind(jobs)
            .bind(self.daemon.to_string())
            .bind(claimed)
            .bind(claimed_by)
            .bind(ints(|begin| i64::from(begin.outside)));
        begin.execute(&mut *self.conn).await?;
        Ok(())
    }
}

/// As a permit is stored; nothing for a call that spends nothing.
pub(super) fn spends_text(spends: &[(LimitKey, u32)]) -> Option<String> {
    let spends: Vec<_> = spends.iter().map(|(key, cost)| (text(&key.0), *cost)).collect();
    (!spends.is_empty()).then(|| serde_json::to_string(&spends).expect("texts and numbers are JSON"))
}

/// Does every job that such a begin locks have a call of its own? Then a number can be drawn with the lock, and none is
/// drawn for nothing.
fn one_call_each(begin: &Begin, takes: &[Take]) -> bool {
    let places: BTreeSet<(FlowId, Class)> = takes.iter().map(|take| (take.flow, take.class)).collect();
    let jobs: u64 = takes.iter().map(|take| u64::from(take.count)).sum();
    begin.lane == Lane::Single && jobs <= u64::from(begin.calls_max) && places.len() == takes.len()
}

fn may_take(begin: &Begin, take: &Take, flows: &BTreeMap<FlowId, Flow>) -> bool {
    flows.get(&take.flow).is_some_and(|flow| {
        !flow.held
            && flow.key.provider == begin.provider
            && flow.key.operation == begin.operation
            && flow.key.account == begin.account
    })
}

/// Jobs to take, in order: the takes as asked for, within one the oldest turn first.
fn pick(begin: &Begin, takes: &[Take], flows: &BTreeMap<FlowId, Flow>, candidates: &mut Candidates) -> Vec<Ready> {
    let (count_max, bytes_max) = match begin.lane {
        Lane::Single => (begin.calls_max as usize, None),
        Lane::Batch if begin.calls_max == 0 => return Vec::new(),
        Lane::Batch => (usize::MAX, Some(begin.bytes_max)),
    };
    let mut picked: Vec<Ready> = Vec::new();
    let mut bytes = 0usize;
    let mut seen: Vec<(FlowId, Class)> = Vec::new();
    for take in takes {
        let place = (take.flow, take.class);
        let count = (take.count as usize).min(count_max - picked.len());
        // A class of a flow that is asked for twice would meet the same jobs again.
        if count == 0 || seen.contains(&place) || !may_take(begin, take, flows) {
            continue;
        }
        seen.push(place);
        let Some(ready) = candidates.get_mut(&place) else { continue };
        for _ in 0..count {
            let Some((_, job)) = ready.front() else { break };
            bytes = bytes.saturating_add(job.payload.len());
            if bytes_max.is_some_and(|max| bytes > max && !picked.is_empty()) {
                return picked;
            }
            picked.extend(ready.pop_front());
        }
    }
    picked
}

/// Single lane: a call each. Batch lane: one call.
fn per_call(begin: &Begin, jobs: Vec<Ready>) -> Vec<Vec<Ready>> {
    match begin.lane {
        _ if jobs.is_empty() => Vec::new(),
        Lane::Single => jobs.into_iter().map(|job| vec![job]).collect(),
        Lane::Batch => vec![jobs],
    }
}

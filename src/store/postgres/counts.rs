//! Counters, changed by differences, and what hangs on them: the end of runs. Next: `notices`.

use std::collections::{BTreeMap, BTreeSet};

use super::arrays::{Delta, bind_deltas};
use super::error::Trouble;
use super::row::{self, Columns};
use super::sql;
use super::work::{Step, Work};
use crate::clock::Timestamp;
use crate::model::event::What;
use crate::model::flow::Flow;
use crate::model::id::FlowId;
use crate::model::name::{OperationName, ProviderName};
use crate::model::run::{Run, RunState};
use crate::store::rules;

impl Work<'_> {
    /// Adds what was counted since the last time. From here to the commit the flows are locked, so this comes as late as
    /// it can.
    pub(super) async fn flush(&mut self) -> Step<()> {
        let deltas = std::mem::take(&mut self.deltas);
        if deltas.is_empty() {
            return Ok(());
        }
        self.need_flows(deltas.keys().copied().collect()).await?;
        let mut tallies: BTreeMap<(&ProviderName, &OperationName), Delta> = BTreeMap::new();
        let mut runs: BTreeMap<i64, Delta> = BTreeMap::new();
        for (id, delta) in &deltas {
            let key = &self.flows[id];
            if *delta != Delta::default() {
                tallies.entry((&key.provider, &key.operation)).or_default().add(delta);
            }
            if key.run != 0 {
                runs.entry(key.run).or_default().add(delta);
            }
        }
        let providers: Vec<String> = tallies.keys().map(|(provider, _)| provider.to_string()).collect();
        let operations: Vec<String> = tallies.keys().map(|(_, operation)| operation.to_string()).collect();
        let sums: Vec<Delta> = tallies.into_values().collect();
        self.add_to_flows(&deltas, (providers, operations, sums)).await?;
        if !runs.is_empty() {
            let seqs: Vec<i64> = runs.keys().copied().collect();
            let deltas: Vec<Delta> = runs.values().copied().collect();
            let save = bind_deltas(sqlx::query(sql::SAVE_RUNS).bind(seqs), &deltas);
            for run in save.fetch_all(&mut *self.conn).await? {
                let run = row::run(&run)?;
                self.runs.insert(run.id.seq, run);
            }
        }
        Ok(())
    }

    /// Adds to the flows, and to the sums per operation.
    async fn add_to_flows(
        &mut self,
        deltas: &BTreeMap<FlowId, Delta>,
        (providers, operations, sums): (Vec<String>, Vec<String>, Vec<Delta>),
    ) -> Step<()> {
        let ids: Vec<i64> = deltas.keys().map(|id| id.0).collect();
        let values: Vec<Delta> = deltas.values().copied().collect();
        let save = bind_deltas(sqlx::query(sql::SAVE_COUNTS).bind(ids), &values).bind(self.now.0);
        let save = bind_deltas(save.bind(providers).bind(operations), &sums);
        let rows = save.fetch_all(&mut *self.conn).await?;
        if rows.len() != deltas.len() {
            return Err(Trouble::Again("a flow went away while it was used".to_owned()));
        }
        for row in rows {
            let mut columns = Columns::of(&row);
            let flow = columns.flow()?;
            self.next_due = Some(columns.opt_int()?.map_or(Timestamp::NEVER, Timestamp));
            self.saved.insert(flow.id, flow);
        }
        Ok(())
    }

    /// Ends the runs that have nothing left to do. After the last `flush`.
    pub(super) async fn end_runs(&mut self) -> Step<()> {
        self.packer.section();
        let runs: BTreeSet<i64> = self.saved.values().map(|flow| flow.key.run).filter(|run| *run != 0).collect();
        for run in runs {
            self.end_run(run).await?;
        }
        self.flush().await
    }

    /// Ends a run that has nothing left to do; its counters are up to date and its row is locked.
    pub(super) async fn end_run(&mut self, seq: i64) -> Step<()> {
        let Some(run) = self.runs.get_mut(&seq) else { return Ok(()) };
        let Some(state) = rules::run_end(run.state, rules::hot(&run.counts)) else { return Ok(()) };
        run.finished_at = Some(self.now);
        self.set_run_state(seq, state).await
    }

    /// Changes a run's state, and with it whether its flows are held.
    pub(super) async fn set_run_state(&mut self, seq: i64, state: RunState) -> Step<()> {
        let run = self.runs.get_mut(&seq).expect("the caller found the run");
        run.state = state;
        run.updated_at = self.now;
        let set = sqlx::query(sql::SET_RUN).bind(seq).bind(state as i64).bind(self.now.0);
        set.bind(run.finished_at.map(|t| t.0)).execute(&mut *self.conn).await?;
        self.packer.note(What::run(run.id, state));
        for flow in self.flows_of_run(seq).await? {
            self.flows.insert(flow.id, flow.key.clone());
            // It is touched too: the next `flush` notes when.
            self.deltas.entry(flow.id).or_default();
            self.saved.insert(flow.id, flow);
        }
        Ok(())
    }

    pub(super) async fn flows_of_run(&mut self, seq: i64) -> Step<Vec<Flow>> {
        let rows = sqlx::query(sql::RUN_FLOWS).bind(seq).bind(0i64).bind(i64::MAX).fetch_all(&mut *self.conn).await?;
        let flows: Result<Vec<Flow>, _> = rows.iter().map(row::flow).collect();
        Ok(flows?)
    }

    /// Runs whose state holds until the commit.
    pub(super) async fn keep_runs(&mut self, seqs: BTreeSet<i64>) -> Step<BTreeMap<i64, Run>> {
        let seqs: Vec<i64> = seqs.into_iter().filter(|seq| *seq != 0).collect();
        if seqs.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut runs = BTreeMap::new();
        for run in sqlx::query(sql::KEEP_RUNS).bind(seqs).fetch_all(&mut *self.conn).await? {
            let run = row::run(&run)?;
            runs.insert(run.id.seq, run);
        }
        Ok(runs)
    }

    /// A run for changing its state, with all that was counted so far.
    pub(super) async fn take_run(&mut self, seq: i64) -> Step<Option<Run>> {
        self.flush().await?;
        let found = sqlx::query(sql::TAKE_RUN).bind(seq).fetch_optional(&mut *self.conn).await?;
        let Some(found) = found else { return Ok(None) };
        let run = row::run(&found)?;
        self.runs.insert(seq, run.clone());
        Ok(Some(run))
    }
}

//! Changes of runs: made, wished upon, called off. Next: `declare`.

use super::arrays::text;
use super::change::Answer;
use super::row::Columns;
use super::work::{Step, Work};
use super::{labels_text, sql};
use crate::model::event::What;
use crate::model::id::RunId;
use crate::model::run::{NewRun, Run, RunState, RunWish};
use crate::store::{Changed, Refusal};

impl Work<'_> {
    pub(super) async fn create_run(&mut self, new: &NewRun) -> Step<Run> {
        if let Some(undone) = new.undo_of {
            // Two daemons that ask at the same time: the index refuses the second commit, which then is tried again.
            let found = sqlx::query(sql::RUN_UNDOING).bind(undone).fetch_optional(&mut *self.conn).await?;
            if let Some(row) = found
                && let Some(run) = self.take_run(Columns::of(&row).int()?).await?
            {
                return Ok(run);
            }
        }
        let labels = labels_text(&new.labels);
        let insert = sqlx::query(sql::INSERT_RUN).bind(self.now.0).bind(text(&new.display_name));
        let insert = insert.bind(new.tenant.as_str()).bind(labels).bind(RunState::Open as i64).bind(new.undo_of);
        let seq = Columns::of(&insert.fetch_one(&mut *self.conn).await?).int()?;
        let run = Run {
            id: RunId::new(self.now, seq),
            display_name: new.display_name.clone(),
            tenant: new.tenant.clone(),
            labels: new.labels.clone(),
            state: RunState::Open,
            counts: Default::default(),
            updated_at: self.now,
            finished_at: None,
            undo_of: new.undo_of,
        };
        self.packer.note(What::run(run.id, run.state));
        Ok(run)
    }

    async fn find_run(&mut self, id: RunId) -> Answer<Run> {
        Ok(self.take_run(id.seq).await?.filter(|run| run.id == id).ok_or(Refusal::NoRun(id)))
    }

    pub(super) async fn wish_run(&mut self, id: RunId, wish: RunWish) -> Answer<Run> {
        let old = match self.find_run(id).await? {
            Ok(run) => run.state,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(new) = old.on(wish) else {
            return Ok(Err(Refusal::WrongRunState { id, state: old.name() }));
        };
        if new != old {
            self.set_run_state(id.seq, new).await?;
        }
        self.end_run(id.seq).await?;
        Ok(self.runs.get(&id.seq).cloned().ok_or(Refusal::NoRun(id)))
    }

    pub(super) async fn fill_run(&mut self, run: RunId, after: i64, limit: u32) -> Step<Changed> {
        let upto = sqlx::query(sql::JOBS_UPTO).bind(after).bind(i64::from(limit));
        let upto = Columns::of(&upto.fetch_one(&mut *self.conn).await?).opt_int()?;
        if let Some(upto) = upto {
            sqlx::query(sql::FILL_RUN).bind(run.seq).bind(after).bind(upto).execute(&mut *self.conn).await?;
        }
        Ok(Changed::Filled { upto })
    }

    pub(super) async fn cancel_run_jobs(&mut self, id: RunId, limit: u32) -> Answer<u64> {
        match self.find_run(id).await? {
            Ok(run) if run.state == RunState::Cancelling => {}
            Ok(run) => return Ok(Err(Refusal::WrongRunState { id, state: run.state.name() })),
            Err(refusal) => return Ok(Err(refusal)),
        }
        // A flow that only calls is busy and has nothing to cancel, so all busy ones are looked at.
        let mut left = limit as usize;
        for flow in self.flows_of_run(id.seq).await? {
            // Cancelling a job may make the next of its key ready, so a flow is done only when it yields nothing.
            loop {
                let before = left;
                for query in [sql::FLOW_READY, sql::FLOW_APART] {
                    left -= self.cancel_some(query, flow.id.0, left).await?;
                }
                if left == before {
                    break;
                }
            }
        }
        self.flush().await?;
        self.end_run(id.seq).await?;
        Ok(Ok(u64::from(limit) - left as u64))
    }
}

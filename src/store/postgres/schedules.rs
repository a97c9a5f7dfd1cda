//! Schedules: declared, paused, deleted, ticked. A tick and all that it starts are one commit, and it holds the schedule's
//! row: of many daemons that tick at once one does it and the others find that it has moved on. Next: `enqueue`.

use super::arrays::text;
use super::change::Answer;
use super::work::{Step, Work};
use super::{row, sql};
use crate::model::event::What;
use crate::model::invalidation::Which;
use crate::model::name::ScheduleName;
use crate::model::run::RunWish;
use crate::model::schedule::Schedule;
use crate::store::schedules::{applied, note, paused, ticked};
use crate::store::{Changed, Refusal, ScheduleChange, Start, Tick};

impl Work<'_> {
    pub(super) async fn schedule(&mut self, change: &ScheduleChange) -> Answer<Changed> {
        if let ScheduleChange::Apply(_) = change {
            // Two daemons that declare a new one would not see each other.
            sqlx::query(sql::LOCK_PROVIDERS).execute(&mut *self.conn).await?;
        }
        let found = sqlx::query(sql::LOCK_SCHEDULE).bind(change.name().as_str());
        let found = found.fetch_optional(&mut *self.conn).await?.map(|row| row::schedule(&row)).transpose()?;
        let there = |found: Option<Schedule>, name: &ScheduleName| found.ok_or(Refusal::NoSchedule(name.clone()));
        let schedule = match change {
            ScheduleChange::Apply(apply) => match applied(found, apply, self.now) {
                Ok(new) => {
                    self.packer.note(note(&new.name, "applied", format!("revision {}", new.revision), &apply.actor));
                    new
                }
                Err(refusal) => return Ok(Err(refusal)),
            },
            ScheduleChange::Delete { name, actor } => {
                if let Err(refusal) = there(found, name) {
                    return Ok(Err(refusal));
                }
                sqlx::query(sql::DELETE_SCHEDULE).bind(name.as_str()).execute(&mut *self.conn).await?;
                self.packer.note(note(name, "deleted", "", actor));
                self.declarations = true;
                return Ok(Ok(Changed::Done));
            }
            ScheduleChange::Pause { name, paused: pause, next_at, actor } => match there(found, name) {
                Ok(found) if found.paused == *pause => return Ok(Ok(Changed::Schedule(Box::new(found)))),
                Ok(found) => {
                    self.packer.note(note(name, if *pause { "paused" } else { "resumed" }, "", actor));
                    paused(found, *pause, *next_at, self.now)
                }
                Err(refusal) => return Ok(Err(refusal)),
            },
            ScheduleChange::Tick(tick) => {
                let checked = there(found, &tick.name).and_then(|found| ticked(found, tick, self.now));
                match checked {
                    Ok(schedule) => self.tick(schedule, tick).await?,
                    Err(refusal) => return Ok(Err(refusal)),
                }
            }
        };
        // The schedulers of other daemons look again; after a plain tick they find out when they tick themselves.
        self.declarations |= !matches!(change, ScheduleChange::Tick(tick) if tick.queued.is_empty());
        self.save_schedule(&schedule).await?;
        Ok(Ok(Changed::Schedule(Box::new(schedule))))
    }

    async fn tick(&mut self, mut schedule: Schedule, tick: &Tick) -> Step<Schedule> {
        if let Some(run) = tick.cancels {
            // It may have ended meanwhile.
            let _ = self.wish_run(run, RunWish::Cancel).await?;
        }
        self.packer.note(note(&tick.name, "ticked", &tick.outcome, &tick.actor));
        if let Some(which) = &tick.invalidates {
            self.invalidate(which, &tick.actor);
        }
        for Start { run, jobs } in &tick.starts {
            let run = self.create_run(run).await?;
            let mut jobs = jobs.clone();
            jobs.iter_mut().for_each(|job| job.run = Some(run.id));
            // The run is new, so nothing refuses them; they have no idempotency keys.
            self.enqueue_all(&jobs).await?;
            // The counters of the run must be there before it can end.
            self.flush().await?;
            let _ = self.wish_run(run.id, RunWish::Seal).await?;
            schedule.last_run = Some(run.id);
        }
        Ok(schedule)
    }

    pub(super) fn invalidate(&mut self, which: &Which, actor: &str) {
        self.packer.note(What::Invalidated { which: which.clone(), actor: actor.to_owned() });
        self.invalidated.push(which.clone());
    }

    async fn save_schedule(&mut self, s: &Schedule) -> Step<()> {
        let (spec, queued) = row::schedule_texts(s);
        let save = sqlx::query(sql::SAVE_SCHEDULE)
            .bind(s.name.as_str())
            .bind(text(&spec))
            .bind(i64::from(s.from_file))
            .bind(text(&s.actor))
            .bind(s.revision)
            .bind(s.version)
            .bind(i64::from(s.paused))
            .bind(s.next_at.0)
            .bind(queued)
            .bind(s.last_tick_at.map(|at| at.0))
            .bind(s.last_run.map(|id| id.to_string()))
            .bind(text(&s.last_outcome))
            .bind(s.created_at.0)
            .bind(s.updated_at.0);
        save.execute(&mut *self.conn).await?;
        Ok(())
    }
}

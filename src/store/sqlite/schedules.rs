//! Schedules: declared, paused, deleted, ticked. A tick and all that it starts are one commit. Next: `enqueue`.

use super::change::Answer;
use super::row;
use super::sql;
use super::work::Work;
use crate::model::event::What;
use crate::model::name::ScheduleName;
use crate::model::run::RunWish;
use crate::model::schedule::Schedule;
use crate::store::schedules::{applied, note, paused, ticked};
use crate::store::{Changed, Error, Refusal, ScheduleChange, Start, Tick};

impl Work<'_> {
    pub(super) async fn schedule(&mut self, change: ScheduleChange) -> Answer<Changed> {
        let rows = self.trip.read(sql::SCHEDULE, &[change.name().as_str().into()]).await?;
        let found = rows.first().map(row::schedule).transpose()?;
        let there = |found: Option<Schedule>, name: &ScheduleName| found.ok_or(Refusal::NoSchedule(name.clone()));
        let schedule = match change {
            ScheduleChange::Apply(apply) => match applied(found, &apply, self.now) {
                Ok(new) => {
                    self.packer.note(note(&new.name, "applied", format!("revision {}", new.revision), &apply.actor));
                    new
                }
                Err(refusal) => return Ok(Err(refusal)),
            },
            ScheduleChange::Delete { name, actor } => {
                if let Err(refusal) = there(found, &name) {
                    return Ok(Err(refusal));
                }
                self.trip.write(sql::DELETE_SCHEDULE, &[name.as_str().into()]);
                self.packer.note(note(&name, "deleted", "", &actor));
                return Ok(Ok(Changed::Done));
            }
            ScheduleChange::Pause { name, paused: pause, next_at, actor } => match there(found, &name) {
                Ok(found) if found.paused == pause => return Ok(Ok(Changed::Schedule(Box::new(found)))),
                Ok(found) => {
                    self.packer.note(note(&name, if pause { "paused" } else { "resumed" }, "", &actor));
                    paused(found, pause, next_at, self.now)
                }
                Err(refusal) => return Ok(Err(refusal)),
            },
            ScheduleChange::Tick(tick) => {
                let checked = there(found, &tick.name).and_then(|found| ticked(found, &tick, self.now));
                match checked {
                    Ok(schedule) => self.tick(schedule, tick).await?,
                    Err(refusal) => return Ok(Err(refusal)),
                }
            }
        };
        self.save_schedule(&schedule);
        Ok(Ok(Changed::Schedule(Box::new(schedule))))
    }

    async fn tick(&mut self, mut schedule: Schedule, tick: Tick) -> Result<Schedule, Error> {
        if let Some(run) = tick.cancels {
            // It may have ended meanwhile.
            let _ = self.wish_run(run, RunWish::Cancel).await?;
        }
        self.packer.note(note(&tick.name, "ticked", &tick.outcome, &tick.actor));
        if let Some(which) = tick.invalidates {
            self.packer.note(What::Invalidated { which, actor: tick.actor.clone() });
        }
        for Start { run, mut jobs } in tick.starts {
            let run = self.create_run(run).await?;
            jobs.iter_mut().for_each(|job| job.run = Some(run.id));
            // The run is new, so nothing refuses them; they have no idempotency keys.
            self.enqueue_all(jobs).await?;
            let _ = self.wish_run(run.id, RunWish::Seal).await?;
            schedule.last_run = Some(run.id);
        }
        Ok(schedule)
    }

    fn save_schedule(&mut self, s: &Schedule) {
        let (spec, queued) = row::schedule_texts(s);
        let values = [
            s.name.as_str().into(),
            spec.into(),
            i64::from(s.from_file).into(),
            s.actor.as_str().into(),
            s.revision.into(),
            s.version.into(),
            i64::from(s.paused).into(),
            s.next_at.0.into(),
            queued.into(),
            s.last_tick_at.map(|at| at.0).into(),
            s.last_run.map(|id| id.to_string()).into(),
            s.last_outcome.as_str().into(),
            s.created_at.0.into(),
            s.updated_at.0.into(),
        ];
        self.trip.write(sql::SAVE_SCHEDULE, &values);
    }
}

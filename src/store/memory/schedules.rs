//! Schedules: declared, paused, deleted, ticked. A tick and all that it starts are one commit. Next: `enqueue`.

use super::Work;
use crate::model::event::What;
use crate::model::name::ScheduleName;
use crate::model::run::RunWish;
use crate::model::schedule::Schedule;
use crate::store::schedules::{applied, note, paused, ticked};
use crate::store::{Changed, Refusal, ScheduleChange, Start, Tick};

impl Work<'_> {
    pub(super) fn schedule(&mut self, change: ScheduleChange) -> Result<Changed, Refusal> {
        let found = self.world.schedules.get(change.name()).cloned();
        let there = |found: Option<Schedule>, name: &ScheduleName| found.ok_or(Refusal::NoSchedule(name.clone()));
        let schedule = match change {
            ScheduleChange::Apply(apply) => {
                let new = applied(found, &apply, self.now)?;
                self.packer.note(note(&new.name, "applied", format!("revision {}", new.revision), &apply.actor));
                new
            }
            ScheduleChange::Delete { name, actor } => {
                there(found, &name)?;
                self.world.schedules.remove(&name);
                self.packer.note(note(&name, "deleted", "", &actor));
                return Ok(Changed::Done);
            }
            ScheduleChange::Pause { name, paused: pause, next_at, actor } => {
                let found = there(found, &name)?;
                if found.paused == pause {
                    return Ok(Changed::Schedule(Box::new(found)));
                }
                self.packer.note(note(&name, if pause { "paused" } else { "resumed" }, "", &actor));
                paused(found, pause, next_at, self.now)
            }
            ScheduleChange::Tick(tick) => {
                let found = there(found, &tick.name)?;
                self.tick(found, tick)?
            }
        };
        self.world.schedules.insert(schedule.name.clone(), schedule.clone());
        Ok(Changed::Schedule(Box::new(schedule)))
    }

    fn tick(&mut self, old: Schedule, tick: Tick) -> Result<Schedule, Refusal> {
        let mut schedule = ticked(old, &tick, self.now)?;
        if let Some(run) = tick.cancels {
            // It may have ended meanwhile.
            let _ = self.wish_run(run, RunWish::Cancel);
        }
        self.packer.note(note(&tick.name, "ticked", &tick.outcome, &tick.actor));
        if let Some(which) = tick.invalidates {
            self.packer.note(What::Invalidated { which, actor: tick.actor.clone() });
        }
        for Start { run, jobs } in tick.starts {
            let run = self.create_run(run);
            for mut job in jobs {
                job.run = Some(run.id);
                self.enqueue(job)?;
            }
            self.wish_run(run.id, RunWish::Seal)?;
            schedule.last_run = Some(run.id);
        }
        Ok(schedule)
    }
}

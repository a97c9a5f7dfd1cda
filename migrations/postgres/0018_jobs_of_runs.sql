-- The run of a job beside its flow, for an index of what each run delivered: undoing a run asks for it, and a list of all
-- jobs is no way to find it. Jobs of no run stay out of the index and pay nothing for it.
alter table job add column run bigint not null default 0;
alter table finished_job add column run bigint not null default 0;

update job
set run = f.run
from flow as f
where f.id = job.flow
  and f.run > 0;

update finished_job
set run = f.run
from flow as f
where f.id = finished_job.flow
  and f.run > 0;

create index finished_of_run on finished_job (run, turn, seq) where run > 0 and place = 5;

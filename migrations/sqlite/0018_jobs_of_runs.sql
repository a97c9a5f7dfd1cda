-- The run of a job beside its flow, for an index of what each run delivered: undoing a run asks for it, and a list of all
-- jobs is no way to find it. Jobs of no run stay out of the index and pay nothing for it.
alter table job add column run integer not null default 0;

update job
set run = (select f.run from flow as f where f.id = job.flow)
where flow in (select id from flow where run > 0);

create index job_of_run on job (run, turn, seq) where run > 0 and place = 5;

-- The run of a job beside its flow, for an index of what each run delivered: undoing a run asks for it, and a list of all
-- jobs is no way to find it. Jobs of no run stay out of the index and pay nothing for it. Jobs of before keep 0: to fill
-- them in here would hold up the first start for as long as the table is large. Undoing fills in its own run's.
alter table job add column run integer not null default 0;

create index job_of_run on job (run, turn, seq) where run > 0 and place = 5;

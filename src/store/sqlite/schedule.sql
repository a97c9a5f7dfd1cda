-- Schedule ?1. By primary key.
select
  name, spec, from_file, actor, revision, version, paused, next_at, queued, last_tick_at, last_run, last_outcome,
  created_at, updated_at
from schedule
where name = ?1

-- Schedule $1, locked until the commit: another tick of it waits. By primary key. SQLite has one writer.
select
  name, spec, from_file, actor, revision, version, paused, next_at, queued, last_tick_at, last_run, last_outcome,
  created_at, updated_at
from schedule
where name = $1
for update

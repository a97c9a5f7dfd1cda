-- Writes a schedule, new or old. By primary key.
insert into schedule (
  name, spec, from_file, actor, revision, version, paused, next_at, queued, last_tick_at, last_run, last_outcome,
  created_at, updated_at
)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
on conflict (name) do update
set
  spec = excluded.spec,
  from_file = excluded.from_file,
  actor = excluded.actor,
  revision = excluded.revision,
  version = excluded.version,
  paused = excluded.paused,
  next_at = excluded.next_at,
  queued = excluded.queued,
  last_tick_at = excluded.last_tick_at,
  last_run = excluded.last_run,
  last_outcome = excluded.last_outcome,
  updated_at = excluded.updated_at

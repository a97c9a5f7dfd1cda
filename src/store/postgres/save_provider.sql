-- Puts a declaration in force. By primary key.
insert into provider (name, source, revision, paused, applied_at, actor, memory)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (name) do update
set
  source = excluded.source,
  revision = excluded.revision,
  paused = excluded.paused,
  applied_at = excluded.applied_at,
  actor = excluded.actor,
  memory = excluded.memory

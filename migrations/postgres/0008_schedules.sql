-- Schedules: what was declared, and where each one stands. version grows with every write; a tick names the one it saw.
create table schedule (
  name text collate "C" primary key,
  spec text not null,
  from_file bigint not null,
  actor text not null,
  revision bigint not null,
  version bigint not null,
  paused bigint not null,
  next_at bigint not null,
  queued text not null,
  last_tick_at bigint,
  last_run text,
  last_outcome text not null,
  created_at bigint not null,
  updated_at bigint not null
) with (fillfactor = 50);

-- Schedules: what was declared, and where each one stands. version grows with every write; a tick names the one it saw.
create table schedule (
  name text primary key,
  spec text not null,
  from_file integer not null,
  actor text not null,
  revision integer not null,
  version integer not null,
  paused integer not null,
  next_at integer not null,
  queued text not null,
  last_tick_at integer,
  last_run text,
  last_outcome text not null,
  created_at integer not null,
  updated_at integer not null
) strict;

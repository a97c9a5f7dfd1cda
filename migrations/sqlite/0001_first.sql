-- The first schema. Times are microseconds since the Unix epoch; steady times are marked. Nothing here is ever
-- changed: later schemas are later files.

-- One row: counters that must not go back, and what the next process needs to know.
create table meta (
  id integer primary key check (id = 1),
  epoch integer not null,
  boot text,
  steady_offset integer,
  steady_floor integer not null,
  -- Lower bounds of the next numbers; the tables may hold higher ones.
  next_seq integer not null,
  next_call integer not null,
  limits_upto integer not null
) strict;

insert into meta (id, epoch, steady_floor, next_seq, next_call, limits_upto)
values (1, 0, 0, 1, 1, 0);

create table provider (
  name text primary key,
  source text not null,
  revision integer not null,
  paused integer not null,
  applied_at integer not null,
  actor text not null,
  memory text
) strict, without rowid;

-- What a limiter saved of itself, as of call meta.limits_upto.
create table saved_limit (
  name text primary key,
  body text not null
) strict, without rowid;

create table run (
  seq integer primary key,
  created_at integer not null,
  display_name text not null,
  tenant text not null,
  labels text,
  state integer not null check (state between 0 and 6),
  ready_urgent integer not null,
  ready_normal integer not null,
  ready_bulk integer not null,
  later integer not null,
  behind integer not null,
  calling integer not null,
  unknown integer not null,
  delivered integer not null,
  dead integer not null,
  cancelled integer not null,
  updated_at integer not null,
  finished_at integer
) strict;

create table flow (
  id integer primary key,
  provider text not null,
  operation text not null,
  account text not null,
  tenant text not null,
  run integer not null,
  ready_urgent integer not null,
  ready_normal integer not null,
  ready_bulk integer not null,
  later integer not null,
  behind integer not null,
  calling integer not null,
  unknown integer not null,
  delivered integer not null,
  dead integer not null,
  cancelled integer not null,
  busy integer not null
) strict;

create unique index flow_by_key on flow (provider, operation, account, tenant, run);
create index flow_busy on flow (id) where busy = 1;
create index flow_of_run on flow (run, id) where run > 0;

-- Sums over the flows of one (provider, operation).
create table tally (
  provider text not null,
  operation text not null,
  ready_urgent integer not null,
  ready_normal integer not null,
  ready_bulk integer not null,
  later integer not null,
  behind integer not null,
  calling integer not null,
  unknown integer not null,
  delivered integer not null,
  dead integer not null,
  cancelled integer not null,
  primary key (provider, operation)
) strict, without rowid;

-- Hot and final jobs in one table: a job that ends is not copied, it only leaves the partial indexes that serve the
-- hot ones, so their size and cost follow the backlog and not the history.
-- place: 0 ready, 1 later, 2 behind, 3 calling, 4 unknown, 5 delivered, 6 dead, 7 cancelled.
create table job (
  seq integer primary key,
  created_at integer not null,
  flow integer not null,
  place integer not null check (place between 0 and 7),
  class integer not null check (class between 0 and 2),
  turn integer not null,
  -- Order scope of the key while the job is hot; null once it is final, so that it leaves the index.
  key_hash integer check (place < 5 or key_hash is null),
  version integer not null,
  attempts integer not null,
  crashes integer not null,
  throttles integer not null,
  due_at integer not null,
  updated_at integer not null,
  finished_at integer check ((place < 5) = (finished_at is null)),
  cancel_requested integer not null,
  call integer check (place <> 3 or call is not null),
  first_sent_at integer,
  last_status integer,
  key text,
  payload text not null,
  labels text,
  traceparent text,
  -- Calls before `call`, oldest first, joined by commas; the oldest are cut off.
  calls text,
  last_error text,
  result text
) strict;

create index job_ready on job (flow, class, turn) where place = 0;
create index job_apart on job (flow, place, turn) where place in (1, 2, 4);
create index job_due on job (due_at) where place = 1;
create index job_by_key on job (key_hash, turn) where key_hash is not null;
create index job_done on job (finished_at) where place in (5, 7);
create index job_dead on job (finished_at) where place = 6;

create table idempotency (
  tenant text not null,
  key text not null,
  fingerprint blob not null,
  job integer not null,
  job_created_at integer not null,
  primary key (tenant, key)
) strict, without rowid;

create index idempotency_of_job on idempotency (job);

-- The journal. ending: 0 open, 1 not sent, 2 answered, 3 lost, 4 crashed.
create table call (
  id integer primary key,
  provider text not null,
  operation text not null,
  lane integer not null,
  account text not null,
  -- JSON [[limit key, cost], ...]; null when the call spends nothing.
  spends text,
  -- Steady time.
  granted_at integer not null,
  epoch integer not null,
  -- Steady time.
  lease_until integer not null,
  -- Packed sequence numbers (store/sqlite/packed.rs).
  jobs blob not null,
  begun_at integer not null,
  ended_at integer check ((ending = 0) = (ended_at is null)),
  -- Steady time.
  settled_at integer,
  ending integer not null check (ending between 0 and 4),
  status integer,
  error text
) strict;

create index call_open on call (id) where ending = 0;
create index call_spent on call (id) where spends is not null;

-- One row per commit: `count` events from number `first` on, as a JSON array.
create table event (
  first integer primary key,
  count integer not null,
  at integer not null,
  data text not null
) strict;

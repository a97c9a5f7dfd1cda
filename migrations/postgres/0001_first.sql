-- The first schema. Times are microseconds since the Unix epoch; steady times are marked. Texts compare by their bytes
-- (collation "C"), as they do in the program. Nothing here is ever changed: later schemas are later files.

-- One row: what the daemons must agree on. Begins lock it for share, so that no permit of an old epoch is journaled.
create table meta (
  id smallint primary key check (id = 1),
  epoch bigint not null,
  boot text,
  steady_offset bigint,
  limits_upto bigint not null
);

insert into meta (id, epoch, limits_upto)
values (1, 0, 0);

-- One row, updated as the last statement of a commit: its lock makes the order of events the order of commits. Apart from
-- meta, so that begins need not wait for commits.
create table tail (
  id smallint primary key check (id = 1),
  next_event bigint not null,
  steady_floor bigint not null
) with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);

insert into tail (id, next_event, steady_floor)
values (1, 1, 0);

-- Numbers are drawn while the row locks that they depend on are held, one by one: never cached by a session.
create sequence job_seq as bigint cache 1;
create sequence call_seq as bigint cache 1;
create sequence flow_seq as bigint cache 1;
create sequence run_seq as bigint cache 1;

create table provider (
  name text collate "C" primary key,
  source text not null,
  revision bigint not null,
  paused smallint not null,
  applied_at bigint not null,
  actor text not null,
  memory text
);

-- What a limiter saved of itself, as of call meta.limits_upto.
create table saved_limit (
  name text collate "C" primary key,
  body text not null
);

-- Counters change by differences, in place: room on the page keeps these updates away from the indexes.
create table run (
  seq bigint primary key,
  created_at bigint not null,
  display_name text not null,
  tenant text collate "C" not null,
  labels text,
  state smallint not null check (state between 0 and 6),
  ready_urgent bigint not null default 0,
  ready_normal bigint not null default 0,
  ready_bulk bigint not null default 0,
  later bigint not null default 0,
  behind bigint not null default 0,
  calling bigint not null default 0,
  unknown bigint not null default 0,
  delivered bigint not null default 0,
  dead bigint not null default 0,
  cancelled bigint not null default 0,
  updated_at bigint not null,
  finished_at bigint
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

create table flow (
  id bigint primary key,
  provider text collate "C" not null,
  operation text collate "C" not null,
  account text collate "C" not null,
  tenant text collate "C" not null,
  run bigint not null,
  ready_urgent bigint not null default 0,
  ready_normal bigint not null default 0,
  ready_bulk bigint not null default 0,
  later bigint not null default 0,
  behind bigint not null default 0,
  calling bigint not null default 0,
  unknown bigint not null default 0,
  delivered bigint not null default 0,
  dead bigint not null default 0,
  cancelled bigint not null default 0,
  -- Grows with every change: tells old news of a flow from new ones.
  version bigint not null default 0,
  busy boolean not null generated always as (
    ready_urgent + ready_normal + ready_bulk + later + behind + calling + unknown > 0
  ) stored
) with (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

create unique index flow_by_key on flow (provider, operation, account, tenant, run);
create index flow_busy on flow (id) where busy;
create index flow_of_run on flow (run, id) where run > 0;

-- Sums over the flows of one (provider, operation).
create table tally (
  provider text collate "C" not null,
  operation text collate "C" not null,
  ready_urgent bigint not null,
  ready_normal bigint not null,
  ready_bulk bigint not null,
  later bigint not null,
  behind bigint not null,
  calling bigint not null,
  unknown bigint not null,
  delivered bigint not null,
  dead bigint not null,
  cancelled bigint not null,
  primary key (provider, operation)
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);

-- Work to do and nothing else: a job that ends moves to finished_job in the commit that ends it.
-- place: 0 ready, 1 later, 2 behind, 3 calling, 4 unknown.
create table job (
  seq bigint primary key,
  created_at bigint not null,
  flow bigint not null,
  turn bigint not null,
  -- Order scope of the key.
  key_hash bigint,
  due_at bigint not null,
  updated_at bigint not null,
  call bigint check (place <> 3 or call is not null),
  first_sent_at bigint,
  version integer not null,
  attempts integer not null,
  crashes integer not null,
  throttles integer not null,
  last_status integer,
  place smallint not null check (place between 0 and 4),
  class smallint not null check (class between 0 and 2),
  cancel_requested smallint not null,
  -- 1: an idempotency key goes with it.
  named smallint not null,
  key text collate "C",
  payload text not null,
  labels text,
  traceparent text,
  -- Calls before `call`, oldest first, joined by commas; the oldest are cut off.
  calls text,
  last_error text,
  result text
) with (
  fillfactor = 70,
  autovacuum_vacuum_scale_factor = 0.01,
  autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_insert_scale_factor = 0.05,
  autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_scale_factor = 0.05
);

create index job_ready on job (flow, class, turn) where place = 0;
create index job_apart on job (flow, place, turn) where place in (1, 2, 4);
create index job_due on job (due_at, seq) where place = 1;
-- One job of a key goes, the others stand behind it: the database holds the order of keys, whoever writes.
create unique index job_head on job (key_hash) where place <> 2 and key_hash is not null;
create index job_behind on job (key_hash, turn) where place = 2;

-- place: 5 delivered, 6 dead, 7 cancelled. Dead jobs wait for a person; the others are partitioned by day
-- (store/postgres/days.rs), so that old ones are dropped and not deleted.
create table finished_job (
  seq bigint not null,
  created_at bigint not null,
  flow bigint not null,
  turn bigint not null,
  finished_at bigint not null,
  due_at bigint not null,
  updated_at bigint not null,
  call bigint,
  first_sent_at bigint,
  version integer not null,
  attempts integer not null,
  crashes integer not null,
  throttles integer not null,
  last_status integer,
  place smallint not null,
  class smallint not null,
  cancel_requested smallint not null,
  named smallint not null,
  key text collate "C",
  payload text not null,
  labels text,
  traceparent text,
  calls text,
  last_error text,
  result text
) partition by list (place);

create table finished_dead partition of finished_job for values in (6);
create table finished_done partition of finished_job for values in (5, 7) partition by range (finished_at);

create index finished_seq on finished_job (seq);
create index finished_at on finished_job (finished_at);
create index finished_named on finished_job (seq) where named = 1;

create table idempotency (
  tenant text collate "C" not null,
  key text collate "C" not null,
  fingerprint bytea not null,
  job bigint not null,
  job_created_at bigint not null,
  primary key (tenant, key)
);

create index idempotency_of_job on idempotency (job);

-- The journal. ending: 0 open, 1 not sent, 2 answered, 3 lost, 4 crashed.
create table call (
  id bigint primary key,
  provider text collate "C" not null,
  operation text collate "C" not null,
  lane smallint not null,
  account text collate "C" not null,
  -- JSON [[limit key, cost], ...]; null when the call spends nothing.
  spends text,
  -- Steady time.
  granted_at bigint not null,
  epoch bigint not null,
  -- Steady time.
  lease_until bigint not null,
  -- Packed sequence numbers (store/packed.rs).
  jobs bytea not null,
  begun_at bigint not null,
  ended_at bigint check ((ending = 0) = (ended_at is null)),
  -- Steady time.
  settled_at bigint,
  ending smallint not null check (ending between 0 and 4),
  status integer,
  error text
) with (
  fillfactor = 85,
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_cost_delay = 0
);

create index call_open on call (id) where ending = 0;
create index call_spent on call (id) where spends is not null;

-- One row per commit: `count` events from number `first` on, as a JSON array.
create table event (
  first bigint primary key,
  count bigint not null,
  at bigint not null,
  data text not null
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

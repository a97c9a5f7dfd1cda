-- What a commit adds to and takes from the counters of flows (array $1, sorted; $12 is now), and to the sums per operation
-- ($13 provider, $14 operation, sorted), new ones included. By primary keys, locked in that order: the sums come last.
-- Answers with the flows as they stand, and with the earliest due time of all jobs. SQLite writes absolute counts by
-- save_flows and save_tallies.
with held as materialized (
  select id
  from flow
  where id = any ($1)
  order by id
  for no key update
), summed as (
  insert into tally (
    provider, operation, ready_urgent, ready_normal, ready_bulk, later, behind, calling, unknown, delivered, dead, cancelled
  )
  select *
  from unnest(
      $13::text[], $14::text[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[],
      $23::bigint[], $24::bigint[]
    ) as d(
      provider, operation, ready_urgent, ready_normal, ready_bulk, later, behind, calling, unknown, delivered, dead, cancelled
    )
  on conflict (provider, operation) do update
  set
    ready_urgent = tally.ready_urgent + excluded.ready_urgent,
    ready_normal = tally.ready_normal + excluded.ready_normal,
    ready_bulk = tally.ready_bulk + excluded.ready_bulk,
    later = tally.later + excluded.later,
    behind = tally.behind + excluded.behind,
    calling = tally.calling + excluded.calling,
    unknown = tally.unknown + excluded.unknown,
    delivered = tally.delivered + excluded.delivered,
    dead = tally.dead + excluded.dead,
    cancelled = tally.cancelled + excluded.cancelled
)
update flow as f
set
  ready_urgent = f.ready_urgent + d.ready_urgent,
  ready_normal = f.ready_normal + d.ready_normal,
  ready_bulk = f.ready_bulk + d.ready_bulk,
  later = f.later + d.later,
  behind = f.behind + d.behind,
  calling = f.calling + d.calling,
  unknown = f.unknown + d.unknown,
  delivered = f.delivered + d.delivered,
  dead = f.dead + d.dead,
  cancelled = f.cancelled + d.cancelled,
  version = f.version + 1,
  touched_at = greatest(f.touched_at, $12)
from held
join unnest(
    $1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
    $10::bigint[], $11::bigint[]
  ) as d(
    id, ready_urgent, ready_normal, ready_bulk, later, behind, calling, unknown, delivered, dead, cancelled
  ) on d.id = held.id
where f.id = held.id
returning
  f.id, f.provider, f.operation, f.account, f.tenant, f.run, f.part, f.ready_urgent, f.ready_normal, f.ready_bulk, f.later, f.behind,
  f.calling, f.unknown, f.delivered, f.dead, f.cancelled, f.version,
  (
    select r.state
    from run as r
    where r.seq = f.run
  ),
  (
    select j.due_at
    from job as j
    where j.place = 1
    order by j.due_at
    limit 1
  )

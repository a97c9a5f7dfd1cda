-- What a commit adds to and takes from the counters of flows (array $1, sorted). By primary key, locked in that order.
-- $12 is now.
-- Answers with the flows as they stand, and with the earliest due time of all jobs.
with held as materialized (
  select id
  from flow
  where id = any ($1)
  order by id
  for no key update
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

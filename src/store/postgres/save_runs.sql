-- The same for runs (array $1, sorted). Answers with the runs as they stand. By primary key, locked in that order.
with held as materialized (
  select seq
  from run
  where seq = any ($1)
  order by seq
  for no key update
)
update run as r
set
  ready_urgent = r.ready_urgent + d.ready_urgent,
  ready_normal = r.ready_normal + d.ready_normal,
  ready_bulk = r.ready_bulk + d.ready_bulk,
  later = r.later + d.later,
  behind = r.behind + d.behind,
  calling = r.calling + d.calling,
  unknown = r.unknown + d.unknown,
  delivered = r.delivered + d.delivered,
  dead = r.dead + d.dead,
  cancelled = r.cancelled + d.cancelled
from held
join unnest(
    $1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
    $10::bigint[], $11::bigint[]
  ) as d(
    seq, ready_urgent, ready_normal, ready_bulk, later, behind, calling, unknown, delivered, dead, cancelled
  ) on d.seq = held.seq
where r.seq = held.seq
returning
  r.seq, r.created_at, r.display_name, r.tenant, r.labels, r.state, r.ready_urgent, r.ready_normal, r.ready_bulk, r.later, r.behind,
  r.calling, r.unknown, r.delivered, r.dead, r.cancelled,
  r.updated_at, r.finished_at, r.undo_of

-- The same for the sums per operation ($1 provider, $2 operation, sorted), new ones included. By primary key.
insert into tally (
  provider, operation, ready_urgent, ready_normal, ready_bulk, later, behind, calling, unknown, delivered, dead, cancelled
)
select *
from unnest(
    $1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[],
    $11::bigint[], $12::bigint[]
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

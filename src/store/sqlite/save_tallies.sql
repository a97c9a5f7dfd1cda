-- Sums per operation as a commit left them. The tuple is repeated; rows of nulls fill up. By primary key.
insert into tally (
  provider, operation, ready_urgent, ready_normal, ready_bulk, later, behind, calling, unknown, delivered, dead, cancelled
)
select *
from (
  values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
)
where column1 is not null
on conflict (provider, operation) do update
set
  ready_urgent = excluded.ready_urgent,
  ready_normal = excluded.ready_normal,
  ready_bulk = excluded.ready_bulk,
  later = excluded.later,
  behind = excluded.behind,
  calling = excluded.calling,
  unknown = excluded.unknown,
  delivered = excluded.delivered,
  dead = excluded.dead,
  cancelled = excluded.cancelled

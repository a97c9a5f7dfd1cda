-- Flows as a commit left them, new ones included. The tuple is repeated; rows of nulls fill up. By primary key.
insert into flow (
  id, provider, operation, account, tenant, run, part, ready_urgent, ready_normal, ready_bulk, later, behind, calling, unknown, delivered, dead, cancelled, busy, touched_at
)
select *
from (
  values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
)
where column1 is not null
on conflict (id) do update
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
  cancelled = excluded.cancelled,
  busy = excluded.busy,
  touched_at = max(touched_at, excluded.touched_at)

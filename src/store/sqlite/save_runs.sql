-- Runs as a commit left them, new ones included. The tuple is repeated; rows of nulls fill up. By primary key.
insert into run (
  seq, created_at, display_name, tenant, labels, state, ready_urgent, ready_normal, ready_bulk, later, behind, calling, unknown, delivered, dead, cancelled,
  updated_at, finished_at, undo_of
)
select *
from (
  values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
)
where column1 is not null
on conflict (seq) do update
set
  state = excluded.state,
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
  updated_at = excluded.updated_at,
  finished_at = excluded.finished_at

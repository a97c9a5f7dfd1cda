-- The newest ?2 runs below ?1. By primary key, downwards.
select
  seq, created_at, display_name, tenant, labels, state, ready_urgent, ready_normal, ready_bulk, later, behind, calling, unknown, delivered, dead, cancelled,
  updated_at, finished_at, undo_of
from run
where seq < ?1
order by seq desc
limit +?2

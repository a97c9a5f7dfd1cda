-- Runs by number (array $1). By primary key.
select
  r.seq, r.created_at, r.display_name, r.tenant, r.labels, r.state, r.ready_urgent, r.ready_normal, r.ready_bulk, r.later, r.behind,
  r.calling, r.unknown, r.delivered, r.dead, r.cancelled,
  r.updated_at, r.finished_at, r.undo_of
from run as r
where r.seq = any ($1)

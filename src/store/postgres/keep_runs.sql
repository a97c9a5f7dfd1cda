-- Runs by number (array $1, sorted), whose state must hold until the commit. By primary key. Changes of state wait
-- (take_run), counters do not.
select
  r.seq, r.created_at, r.display_name, r.tenant, r.labels, r.state, r.ready_urgent, r.ready_normal, r.ready_bulk, r.later, r.behind,
  r.calling, r.unknown, r.delivered, r.dead, r.cancelled,
  r.updated_at, r.finished_at, r.undo_of
from run as r
where r.seq = any ($1)
order by r.seq
for key share

-- Ends of calls. By rowid. An entry that has ended before stays as it is.
with new (id, ending, status, error, settled_at, ended_at) as (
  values (?, ?, ?, ?, ?, ?)
)
update call
set
  ending = new.ending,
  status = new.status,
  error = new.error,
  settled_at = new.settled_at,
  ended_at = new.ended_at
from new
where call.id = new.id
  and call.ending = 0

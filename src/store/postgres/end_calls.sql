-- Ends of calls. By primary key; open_call_jobs locked them.
update call
set
  ending = new.ending,
  status = new.status,
  error = new.error,
  settled_at = new.settled_at,
  ended_at = $6
from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[])
  as new(id, ending, status, error, settled_at)
where call.id = new.id
  and call.ending = 0

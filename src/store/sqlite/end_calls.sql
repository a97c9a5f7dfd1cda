-- Ends of calls that ended alike: ?1 JSON array of [number, settled at, latency, headers, bodies], ?2 ending, ?3 status, ?4 error, ?5 now. By rowid.
-- An entry that has ended before stays as it is.
update call
set
  ending = ?2,
  status = ?3,
  error = ?4,
  settled_at = j.value ->> 1,
  latency = j.value ->> 2,
  headers = j.value ->> 3,
  bodies = j.value ->> 4,
  ended_at = ?5
from json_each(?1) as j
where call.id = j.value ->> 0
  and call.ending = 0

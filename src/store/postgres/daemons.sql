-- All daemons on record by start, and whether they live. A handful of rows, read whole.
select
  id, name, started_at, heartbeat_until,
  (heartbeat_until > (extract(epoch from clock_timestamp()) * 1000000)::bigint)::int
from daemon
order by started_at, id

-- Journal entries by number (JSON array ?1). By rowid.
select
  c.id, c.provider, c.operation, c.lane, c.account, c.spends, c.granted_at, c.epoch, c.lease_until, c.jobs, c.begun_at, c.ended_at, c.settled_at,
  c.ending, c.status, c.error, c.outside, c.latency, c.headers, c.bodies
from json_each(?1) as n
cross join call as c on c.id = n.value

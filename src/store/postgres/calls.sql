-- Journal entries by number (array $1). By primary key.
select
  c.id, c.provider, c.operation, c.lane, c.account, c.spends, c.granted_at, c.epoch, c.lease_until, c.jobs, c.begun_at,
  c.ended_at, c.settled_at, c.ending, c.status, c.error, c.outside, c.latency, c.headers, c.bodies
from call as c
where c.id = any ($1)
order by c.id

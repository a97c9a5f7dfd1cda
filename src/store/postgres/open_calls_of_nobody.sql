-- The same, whose lease is over by the database's clock. Relies on call_open.
select
  c.id, c.provider, c.operation, c.lane, c.account, c.spends, c.granted_at, c.epoch, c.lease_until, c.jobs, c.begun_at,
  c.ended_at, c.settled_at, c.ending, c.status, c.error, c.outside, c.latency, c.headers, c.bodies
from call as c
where c.ending = 0
  and c.id > $1
  and c.lease_until < (extract(epoch from clock_timestamp()) * 1000000)::bigint
order by c.id
limit $2

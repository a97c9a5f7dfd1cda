-- The newest $3 calls below $1 among the newest $2, with their bodies if $4 is 1. A list filter takes the place of the
-- condition of the outer query, its values as parameters only. By primary key, downwards.
select
  c.id, c.provider, c.operation, c.lane, c.account, c.spends, c.granted_at, c.epoch, c.lease_until, c.jobs, c.begun_at,
  c.ended_at, c.settled_at, c.ending, c.status, c.error, c.outside, c.latency, c.headers,
  case when $4 = 1 then c.bodies end
from (
  select *
  from call
  where id < $1
  order by id desc
  limit $2
) as c
where true
order by c.id desc
limit $3

-- Up to ?2 calls above ?1 that have not ended, oldest first. Relies on call_open.
select
  id, provider, operation, lane, account, spends, granted_at, epoch, lease_until, jobs, begun_at, ended_at, settled_at,
  ending, status, error, outside, latency, headers, bodies
from call
where ending = 0
  and id > ?1
order by id
limit +?2

-- Journal entries of calls that begin. $1 is their numbers; all but their jobs ($11) is told per begin.
insert into call (
  id, provider, operation, lane, account, spends, granted_at, epoch, lease_until, begun_at, jobs, daemon, outside, ending
)
select
  n.id, n.provider, n.operation, n.lane, n.account, n.spends, n.granted_at, n.epoch, n.lease_until, $10, n.jobs, $12, n.outside, 0
from unnest(
    $1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[],
    $11::bytea[], $13::bigint[]
  ) as n(id, provider, operation, lane, account, spends, granted_at, epoch, lease_until, jobs, outside)

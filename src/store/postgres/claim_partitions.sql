-- Daemon $1 takes up to $3 partitions of provider $2 that nobody owns or whose owner's heartbeat has ended, if its own has
-- not. What another daemon is taking is left to it. By primary keys.
with moment as materialized (
  select (extract(epoch from clock_timestamp()) * 1000000)::bigint as now
), free as materialized (
  select p.provider, p.shard
  from partition as p
  where p.provider = $2
    and not exists (
      select 1
      from daemon as d, moment
      where d.id = p.owner
        and d.heartbeat_until > moment.now
    )
    and exists (
      select 1
      from daemon as d, moment
      where d.id = $1
        and d.heartbeat_until > moment.now
    )
  order by p.shard
  limit $3
  for update of p skip locked
)
update partition as p
set
  owner = $1,
  fence = p.fence + 1
from free
where p.provider = free.provider
  and p.shard = free.shard
returning p.shard, p.fence

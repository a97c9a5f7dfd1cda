-- The epoch, and the fences of partitions ($1 provider, $2 shard). All must hold until the commit: bump_epoch and claims
-- wait. By primary keys; partitions that nobody claimed are left out. SQLite's epoch is on the desk, and it has one
-- partition.
with present as materialized (
  select epoch
  from meta
  where id = 1
  for share
), held as materialized (
  select p.provider, p.shard, p.fence
  from unnest($1::text[], $2::bigint[]) as n(provider, shard)
  cross join lateral (
    select *
    from partition
    where partition.provider = n.provider
      and partition.shard = n.shard
    for share
  ) as p
)
select present.epoch, held.provider, held.shard, held.fence
from present
left join held on true

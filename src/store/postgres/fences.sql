-- The fences of partitions ($1 provider, $2 shard), which must hold until the commit: claims wait. By primary key.
-- SQLite has one partition.
select p.provider, p.shard, p.fence
from unnest($1::text[], $2::bigint[]) as n(provider, shard)
cross join lateral (
  select *
  from partition
  where partition.provider = n.provider
    and partition.shard = n.shard
  for share
) as p

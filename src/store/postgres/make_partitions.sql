-- Partitions ($1 provider, $2 shard) that are not on record yet: nobody's, fence 0.
insert into partition (provider, shard, owner, fence)
select n.provider, n.shard, null, 0
from unnest($1::text[], $2::bigint[]) as n(provider, shard)
on conflict (provider, shard) do nothing

-- What the daemons (array $1) own. Relies on partition_of_owner.
select owner, provider, shard, fence
from partition
where owner = any ($1)
order by owner, provider, shard

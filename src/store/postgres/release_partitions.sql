-- Daemon $1 gives partitions ($3 shards) of provider $2 back and tells the others ($4), who need not find out by their
-- beats. By primary key.
with released as (
  update partition
  set
    owner = null,
    fence = fence + 1
  where provider = $2
    and shard = any ($3)
    and owner = $1
  returning shard
)
select pg_notify('tidegate', $4)
from released
limit 1

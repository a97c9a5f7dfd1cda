-- Daemon $1 gives partitions ($3 shards) of provider $2 back. By primary key.
update partition
set
  owner = null,
  fence = fence + 1
where provider = $2
  and shard = any ($3)
  and owner = $1

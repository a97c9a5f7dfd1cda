-- Removes daemons whose heartbeat ended a day ago and that own nothing. A handful of rows.
delete from daemon
where heartbeat_until < (extract(epoch from clock_timestamp()) * 1000000)::bigint - 86400000000
  and not exists (
    select 1
    from partition
    where partition.owner = daemon.id
  )

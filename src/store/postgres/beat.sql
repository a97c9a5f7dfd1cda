-- Daemon $1 with name $2 lives for $3 microseconds more. Answers with 1 when it had not ended before, else 0.
with moment as materialized (
  select (extract(epoch from clock_timestamp()) * 1000000)::bigint as now
), before as materialized (
  select heartbeat_until
  from daemon
  where id = $1
  for update
)
insert into daemon (id, name, started_at, heartbeat_until)
select $1, $2, moment.now, moment.now + $3
from moment
on conflict (id) do update
set
  name = excluded.name,
  heartbeat_until = excluded.heartbeat_until
returning (
    select case when coalesce(min(before.heartbeat_until), moment.now) >= moment.now then 1 else 0 end
    from moment
    left join before on true
    group by moment.now
  )::bigint

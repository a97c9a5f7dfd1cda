-- What info tells: the one row of meta and of tail, the time, the size, the version.
select
  m.epoch, m.boot, m.steady_offset, t.steady_floor, m.limiter_run,
  (extract(epoch from clock_timestamp()) * 1000000)::bigint, pg_database_size(current_database())
from meta as m
join tail as t on t.id = m.id
where m.id = 1

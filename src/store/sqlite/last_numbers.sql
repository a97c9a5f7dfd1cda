-- The highest numbers in use: job, call, flow, run, event. By primary keys, from the end.
select
  (select max(seq) from job),
  (select max(id) from call),
  (select max(id) from flow),
  (select max(seq) from run),
  (select first + count - 1 from event order by first desc limit 1)

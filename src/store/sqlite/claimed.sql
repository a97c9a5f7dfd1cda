-- Jobs (JSON array ?1) that are calling under call ?2. By rowid.
select
  j.seq, j.created_at, j.flow, j.class, j.key, j.payload, j.version, j.due_at, j.attempts, j.crashes, j.throttles,
  j.first_sent_at, j.traceparent
from json_each(?1) as n
cross join job as j on j.seq = n.value
where j.place = 3
  and j.call = ?2
order by n.key

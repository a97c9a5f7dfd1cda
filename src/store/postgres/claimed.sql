-- Jobs (array $1) that are calling under call $2. By primary key.
select
  j.seq, j.created_at, j.flow, j.class, j.key, j.payload, j.version, j.due_at, j.attempts, j.crashes, j.throttles,
  j.first_sent_at, j.traceparent
from unnest($1::bigint[]) with ordinality as n(seq, nth)
join job as j on j.seq = n.seq
where j.place = 3
  and j.call = $2
order by n.nth

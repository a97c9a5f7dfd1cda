-- Ready jobs, oldest turn first: for each of the flows $1 and classes $2 up to $3. Relies on job_ready. Locks what it
-- takes and skips what somebody else is taking.
select
  w.nth, j.seq, j.created_at, j.turn, j.key_hash, j.version, j.attempts, j.crashes, j.throttles, j.due_at,
  j.first_sent_at, j.last_status, j.last_error, j.result, j.key, j.payload, j.traceparent
from unnest($1::bigint[], $2::bigint[], $3::bigint[]) with ordinality as w(flow, class, count, nth)
cross join lateral (
  select *
  from job
  where job.flow = w.flow
    and job.class = w.class
    and job.place = 0
  order by job.turn
  limit w.count
  for update skip locked
) as j
order by w.nth, j.turn

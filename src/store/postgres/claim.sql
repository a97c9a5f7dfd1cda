-- Ready jobs, oldest turn first: for each of the flows $1 and classes $2 up to $3. Relies on job_ready. Locks what it
-- takes and skips what somebody else is taking. Where $4 says 1, each draws a number for a call of its own: after this
-- statement's snapshot, so above that of every earlier call whose end let the job go.
select
  w.nth, j.seq, j.created_at, j.turn, j.key_hash, j.version, j.attempts, j.crashes, j.throttles, j.due_at,
  j.first_sent_at, j.last_status, j.last_error, j.result, j.key, j.payload, j.traceparent,
  case when w.draws = 1 then nextval('call_seq') end
from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) with ordinality as w(flow, class, count, draws, nth)
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

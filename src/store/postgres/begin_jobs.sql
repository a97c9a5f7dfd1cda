-- Claims jobs: $1 their numbers, $2 the call of each, $3 now. By primary key; claim.sql locked them.
-- Keeps the former calls, cut to what Job.calls can show.
update job
set
  place = 3,
  attempts = attempts + 1,
  calls = case when job.call is null then calls else right(coalesce(calls || ',', '') || job.call, 640) end,
  call = n.call,
  first_sent_at = coalesce(first_sent_at, $3),
  updated_at = $3
from unnest($1::bigint[], $2::bigint[]) as n(seq, call)
where job.seq = n.seq

-- The last job that stands behind another of its key (array $1 of key hashes, sorted), locked. Relies on job_behind.
select
  j.seq, j.created_at, j.flow, j.place, j.class, j.turn, j.key_hash, j.version, j.attempts, j.crashes,
  j.throttles, j.due_at, j.updated_at, null::bigint as finished_at, j.cancel_requested, j.call, j.first_sent_at, j.last_status,
  j.last_error, j.result, j.key
from unnest($1::bigint[]) as k(hash)
cross join lateral (
  select *
  from job
  where job.key_hash = k.hash
    and job.place = 2
  order by job.turn desc
  limit 1
  for update
) as j

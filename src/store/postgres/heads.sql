-- The job of each key (array $1 of key hashes, sorted) that the others stand behind, locked: whoever adds to a key or ends
-- its first job holds this row. Relies on job_head. SQLite has one writer.
select
  j.seq, j.created_at, j.flow, j.place, j.class, j.turn, j.key_hash, j.version, j.attempts, j.crashes,
  j.throttles, j.due_at, j.updated_at, null::bigint as finished_at, j.cancel_requested, j.call, j.first_sent_at, j.last_status,
  j.last_error, j.result, j.key
from unnest($1::bigint[]) as k(hash)
cross join lateral (
  select *
  from job
  where job.key_hash = k.hash
    and job.place <> 2
    and job.key_hash is not null
  for update
) as j

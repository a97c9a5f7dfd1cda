-- The last hot job of each key (JSON array ?1 of key hashes). Relies on job_by_key.
select
  j.seq, j.created_at, j.flow, j.place, j.class, j.turn, j.key_hash, j.version, j.attempts, j.crashes,
  j.throttles, j.due_at, j.updated_at, j.finished_at, j.cancel_requested, j.call, j.first_sent_at, j.last_status,
  j.last_error, j.result, j.key
from json_each(?1) as k
cross join job as j on j.seq = (
  select c.seq
  from job as c
  where c.key_hash = k.value
  order by c.turn desc
  limit 1
)

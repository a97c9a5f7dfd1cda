-- Up to ?3 ready jobs of flow ?1 and class ?2, oldest turn first. Relies on job_ready.
select
  j.seq, j.created_at, j.turn, j.key_hash, j.version, j.attempts, j.crashes, j.throttles, j.due_at, j.first_sent_at,
  j.last_status, j.last_error, j.result, j.key, j.payload, j.traceparent
from job as j
where j.flow = ?1
  and j.class = ?2
  and j.place = 0
order by j.turn
limit +?3

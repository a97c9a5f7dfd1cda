-- Up to ?2 ready jobs of flow ?1 as a gate would take them, for calling a run off. Relies on job_ready.
select
  j.seq, j.created_at, j.flow, j.place, j.class, j.turn, j.key_hash, j.version, j.attempts, j.crashes,
  j.throttles, j.due_at, j.updated_at, j.finished_at, j.cancel_requested, j.call, j.first_sent_at, j.last_status,
  j.last_error, j.result
from job as j
where j.flow = ?1
  and j.place = 0
order by j.class, j.turn
limit +?2

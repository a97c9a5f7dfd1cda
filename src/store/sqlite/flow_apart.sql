-- Up to ?2 waiting or unknown jobs of flow ?1 that are not ready, for calling a run off. Relies on job_apart.
select
  j.seq, j.created_at, j.flow, j.place, j.class, j.turn, j.key_hash, j.version, j.attempts, j.crashes,
  j.throttles, j.due_at, j.updated_at, j.finished_at, j.cancel_requested, j.call, j.first_sent_at, j.last_status,
  j.last_error, j.result
from job as j
where j.flow = ?1
  and j.place in (1, 2, 4)
order by j.place, j.turn, j.seq
limit +?2

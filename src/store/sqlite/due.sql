-- Up to ?2 jobs whose due time has come by ?1, earliest first. Relies on job_due.
select
  j.seq, j.created_at, j.flow, j.place, j.class, j.turn, j.key_hash, j.version, j.attempts, j.crashes,
  j.throttles, j.due_at, j.updated_at, j.finished_at, j.cancel_requested, j.call, j.first_sent_at, j.last_status,
  j.last_error, j.result
from job as j
where j.place = 1
  and j.due_at <= ?1
order by j.due_at, j.seq
limit +?2

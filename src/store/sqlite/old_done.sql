-- Up to ?2 delivered or cancelled jobs that ended before ?1, oldest first. Relies on job_done.
select seq
from job
where place in (5, 7)
  and finished_at < ?1
order by finished_at, seq
limit +?2

-- Up to ?2 dead jobs that ended before ?1, oldest first. Relies on job_dead.
select seq
from job
where place = 6
  and finished_at < ?1
order by finished_at, seq
limit +?2

-- Up to ?4 delivered jobs of run ?1 below turn ?2 and number ?3, the last one first. Relies on job_of_run.
select
  j.turn, j.seq, f.provider, f.operation
from job as j
join flow as f on f.id = j.flow
where j.run = ?1
  and j.run > 0
  and j.place = 5
  and (j.turn, j.seq) < (?2, ?3)
order by j.turn desc, j.seq desc
limit +?4

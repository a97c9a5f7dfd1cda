-- Creation time of the ready job of flow $1 and class $2 that goes first. Relies on job_ready.
select created_at
from job
where flow = $1
  and class = $2
  and place = 0
order by turn
limit 1

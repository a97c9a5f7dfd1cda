-- The job of key hash $1 that the others stand behind. Relies on job_head.
select seq
from job
where key_hash = $1
  and place <> 2

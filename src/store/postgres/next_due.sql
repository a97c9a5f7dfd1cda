-- Earliest due time of all jobs that are not due yet. Relies on job_due.
select min(due_at)
from job
where place = 1

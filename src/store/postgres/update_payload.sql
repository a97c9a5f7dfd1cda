-- The edited payload $2 of job $1. By primary key.
update job
set payload = $2
where seq = $1

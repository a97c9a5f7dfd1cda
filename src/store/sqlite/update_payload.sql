-- The edited payload ?2 of job ?1. By rowid.
update job
set payload = ?2
where seq = ?1

-- Removes the idempotency keys of jobs (JSON array ?1). Relies on idempotency_of_job.
delete from idempotency
where job in (select value from json_each(?1))

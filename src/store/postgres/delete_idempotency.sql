-- Removes the idempotency keys of jobs (array $1). Relies on idempotency_of_job.
delete from idempotency
where job = any ($1)

-- Idempotency keys of accepted jobs. The tuple is repeated.
insert into idempotency (tenant, key, fingerprint, job, job_created_at)
values (?, ?, ?, ?, ?)

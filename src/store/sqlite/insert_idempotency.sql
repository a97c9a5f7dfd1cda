-- Idempotency keys of accepted jobs. The tuple is repeated; rows of nulls fill up.
insert into idempotency (tenant, key, fingerprint, job, job_created_at)
select *
from (
  values (?, ?, ?, ?, ?)
)
where column1 is not null

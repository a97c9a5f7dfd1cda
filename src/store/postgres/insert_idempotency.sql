-- Idempotency keys of accepted jobs. One that another daemon took meanwhile is not inserted: the batch starts anew.
insert into idempotency (tenant, key, fingerprint, job, job_created_at)
select *
from unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[]) as n(tenant, key, fingerprint, job, created_at)
on conflict (tenant, key) do nothing

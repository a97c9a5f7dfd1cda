-- What is known of idempotency keys (arrays: $1 tenant, $2 key). By primary key.
select i.tenant, i.key, i.fingerprint, i.job, i.job_created_at
from unnest($1::text[], $2::text[]) as n(tenant, key)
join idempotency as i on i.tenant = n.tenant
  and i.key = n.key

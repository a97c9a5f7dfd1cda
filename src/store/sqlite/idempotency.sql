-- What is known of idempotency keys (JSON array ?1 of [tenant, key]). By primary key.
select i.tenant, i.key, i.fingerprint, i.job, i.job_created_at
from json_each(?1) as n
cross join idempotency as i on i.tenant = n.value ->> 0
  and i.key = n.value ->> 1

-- Flows by key (arrays: $1 provider, $2 operation, $3 account, $4 tenant, $5 run, $6 part), with the position of the key from 1.
-- Relies on flow_by_key.
select n.nth, f.id
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[]) with ordinality
  as n(provider, operation, account, tenant, run, part, nth)
join flow as f on f.provider = n.provider
  and f.operation = n.operation
  and f.account = n.account
  and f.tenant = n.tenant
  and f.run = n.run
  and f.part = n.part

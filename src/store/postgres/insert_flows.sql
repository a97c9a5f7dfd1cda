-- New flows by key, as in flows_by_key. One that another daemon made meanwhile is left to it. SQLite makes them in
-- save_flows.
insert into flow (id, provider, operation, account, tenant, run, part)
select nextval('flow_seq'), n.*
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
  as n(provider, operation, account, tenant, run, part)
on conflict (provider, operation, account, tenant, run, part) do nothing

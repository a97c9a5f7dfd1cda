-- Flows by key (JSON array ?1 of [provider, operation, account, tenant, run, part]). Relies on flow_by_key.
select
  f.id, f.provider, f.operation, f.account, f.tenant, f.run, f.part, f.ready_urgent, f.ready_normal, f.ready_bulk, f.later,
  f.behind, f.calling, f.unknown, f.delivered, f.dead, f.cancelled, 0, r.state
from json_each(?1) as n
cross join flow as f on f.provider = n.value ->> 0
  and f.operation = n.value ->> 1
  and f.account = n.value ->> 2
  and f.tenant = n.value ->> 3
  and f.run = n.value ->> 4
  and f.part = n.value ->> 5
left join run as r on r.seq = f.run

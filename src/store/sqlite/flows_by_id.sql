-- Flows by number (JSON array ?1), each with the state of its run. By primary key.
select
  f.id, f.provider, f.operation, f.account, f.tenant, f.run, f.part, f.ready_urgent, f.ready_normal, f.ready_bulk, f.later,
  f.behind, f.calling, f.unknown, f.delivered, f.dead, f.cancelled, 0, r.state
from json_each(?1) as n
cross join flow as f on f.id = n.value
left join run as r on r.seq = f.run

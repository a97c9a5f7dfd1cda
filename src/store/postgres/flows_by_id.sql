-- Flows by number (array $1), each with the state of its run. By primary key.
select
  f.id, f.provider, f.operation, f.account, f.tenant, f.run, f.part, f.ready_urgent, f.ready_normal, f.ready_bulk, f.later, f.behind,
  f.calling, f.unknown, f.delivered, f.dead, f.cancelled, f.version, r.state
from flow as f
left join run as r on r.seq = f.run
where f.id = any ($1)
order by f.id

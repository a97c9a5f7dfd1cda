-- Up to ?3 flows of run ?1 that are busy, or all of them when ?2 is 0. Relies on flow_of_run.
select
  f.id, f.provider, f.operation, f.account, f.tenant, f.run, f.part, f.ready_urgent, f.ready_normal, f.ready_bulk, f.later,
  f.behind, f.calling, f.unknown, f.delivered, f.dead, f.cancelled, 0, r.state
from flow as f
left join run as r on r.seq = f.run
where f.run = ?1
  and f.run > 0
  and f.busy >= ?2
order by f.id
limit +?3

-- Up to ?2 flows above ?1 with jobs that are not final. Relies on flow_busy.
select
  f.id, f.provider, f.operation, f.account, f.tenant, f.run, f.part, f.ready_urgent, f.ready_normal, f.ready_bulk, f.later,
  f.behind, f.calling, f.unknown, f.delivered, f.dead, f.cancelled, 0, r.state
from flow as f
left join run as r on r.seq = f.run
where f.busy = 1
  and f.id > ?1
order by f.id
limit +?2

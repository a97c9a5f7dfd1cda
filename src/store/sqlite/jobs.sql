-- Whole jobs by number (JSON array ?1), in that order. By rowid.
select
  j.seq, j.created_at, j.flow, j.place, j.class, j.turn, j.key_hash, j.version, j.attempts, j.crashes,
  j.throttles, j.due_at, j.updated_at, j.finished_at, j.cancel_requested, j.call, j.first_sent_at, j.last_status,
  j.last_error, j.result, j.key, j.payload, j.labels, j.traceparent, j.calls,
  f.provider, f.operation, f.account, f.tenant, f.run, f.part
from json_each(?1) as n
cross join job as j on j.seq = n.value
join flow as f on f.id = j.flow
order by n.key

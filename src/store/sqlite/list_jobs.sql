-- The newest ?3 jobs below ?1 among the newest ?2. A list filter takes the place of the condition of the outer query,
-- its values as parameters only. By rowid, downwards.
select
  j.seq, j.created_at, j.flow, j.place, j.class, j.turn, j.key_hash, j.version, j.attempts, j.crashes,
  j.throttles, j.due_at, j.updated_at, j.finished_at, j.cancel_requested, j.call, j.first_sent_at, j.last_status,
  j.last_error, j.result, j.key, j.payload, j.labels, j.traceparent, j.calls,
  f.provider, f.operation, f.account, f.tenant, f.run, f.part
from (
  select *
  from job
  where seq < ?1
  order by seq desc
  limit +?2
) as j
join flow as f on f.id = j.flow
where true
order by j.seq desc
limit +?3

-- The newest $3 jobs below $1 among the newest $2, hot or final. A list filter takes the place of the condition of the
-- outer query, its values as parameters only. Along the primary key and finished_seq of each partition, downwards.
select
  j.seq, j.created_at, j.flow, j.place, j.class, j.turn, j.key_hash, j.version, j.attempts, j.crashes,
  j.throttles, j.due_at, j.updated_at, j.finished_at, j.cancel_requested, j.call, j.first_sent_at, j.last_status,
  j.last_error, j.result, j.key, j.payload, j.labels, j.traceparent, j.calls,
  f.provider, f.operation, f.account, f.tenant, f.run, f.part
from (
  select *
  from (
    (
      select
        h.seq, h.created_at, h.flow, h.place, h.class, h.turn, h.key_hash, h.version, h.attempts, h.crashes,
        h.throttles, h.due_at, h.updated_at, null::bigint as finished_at, h.cancel_requested, h.call, h.first_sent_at, h.last_status,
        h.last_error, h.result, h.key, h.payload, h.labels,
        h.traceparent, h.calls
      from job as h
      where h.seq < $1
      order by h.seq desc
      limit $2
    )
    union all
    (
      select
        h.seq, h.created_at, h.flow, h.place, h.class, h.turn, null::bigint as key_hash, h.version, h.attempts, h.crashes,
        h.throttles, h.due_at, h.updated_at, h.finished_at, h.cancel_requested, h.call, h.first_sent_at, h.last_status,
        h.last_error, h.result, h.key, h.payload, h.labels,
        h.traceparent, h.calls
      from finished_job as h
      where h.seq < $1
      order by h.seq desc
      limit $2
    )
  ) as both_tables
  order by seq desc
  limit $2
) as j
join flow as f on f.id = j.flow
where true
order by j.seq desc
limit $3

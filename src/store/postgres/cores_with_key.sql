-- Hot jobs by number (array $1) with their key and its scope, locked, for changes. By primary key.
select
  j.seq, j.created_at, j.flow, j.place, j.class, j.turn, j.key_hash, j.version, j.attempts, j.crashes,
  j.throttles, j.due_at, j.updated_at, null::bigint as finished_at, j.cancel_requested, j.call, j.first_sent_at, j.last_status,
  j.last_error, j.result, j.key, f.provider, f.account
from job as j
join flow as f on f.id = j.flow
where j.seq = any ($1)
order by j.key_hash, j.seq
for update of j

-- Final jobs by number (array $1) with their key and its scope. Relies on finished_seq of each partition; a dead one is
-- locked when it is brought back (revive_jobs). SQLite keeps final jobs with the hot ones.
select
  j.seq, j.created_at, j.flow, j.place, j.class, j.turn, null::bigint as key_hash, j.version, j.attempts, j.crashes,
  j.throttles, j.due_at, j.updated_at, j.finished_at, j.cancel_requested, j.call, j.first_sent_at, j.last_status,
  j.last_error, j.result, j.key, f.provider, f.account
from unnest($1::bigint[]) as n(seq)
join finished_job as j on j.seq = n.seq
join flow as f on f.id = j.flow

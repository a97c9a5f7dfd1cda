-- Hot jobs as a change left them: everything of a job but its texts. By primary key. begin_calls is its cheap sibling for
-- the most frequent change; finish_jobs and revive_jobs move between the tables.
update job
set
  place = new.place,
  class = new.class,
  turn = new.turn,
  key_hash = new.key_hash,
  version = new.version,
  attempts = new.attempts,
  crashes = new.crashes,
  throttles = new.throttles,
  due_at = new.due_at,
  updated_at = new.updated_at,
  cancel_requested = new.cancel_requested,
  first_sent_at = new.first_sent_at,
  last_status = new.last_status,
  last_error = new.last_error,
  result = new.result
from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
    $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[],
    $15::bigint[], $16::text[], $17::text[])
  as new(seq, place, class, turn, key_hash, version, attempts, crashes, throttles, due_at, updated_at, finished_at,
    cancel_requested, first_sent_at, last_status, last_error, result)
where job.seq = new.seq

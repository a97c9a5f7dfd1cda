-- Jobs as a change left them: everything of a job but its texts. By rowid. begin_jobs and deliver_jobs are its cheap
-- siblings for the two most frequent changes.
with new (seq, place, class, turn, key_hash, version, attempts, crashes, throttles, due_at, updated_at, finished_at,
  cancel_requested, first_sent_at, last_status, last_error, result) as (
  values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
)
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
  finished_at = new.finished_at,
  cancel_requested = new.cancel_requested,
  first_sent_at = new.first_sent_at,
  last_status = new.last_status,
  last_error = new.last_error,
  result = new.result
from new
where job.seq = new.seq

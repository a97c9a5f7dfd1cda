-- Jobs that became final leave the hot table. By primary key. The parameters are those of update_jobs; SQLite only takes
-- such jobs out of its indexes (deliver_jobs).
with gone as (
  delete from job
  using unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
    $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[],
    $15::bigint[], $16::text[], $17::text[])
    as new(seq, place, class, turn, key_hash, version, attempts, crashes, throttles, due_at, updated_at, finished_at,
    cancel_requested, first_sent_at, last_status, last_error, result)
  where job.seq = new.seq
  returning
    job.seq, job.created_at, job.flow, new.turn, new.due_at, new.updated_at, job.call, new.first_sent_at, new.version,
    new.attempts, new.crashes, new.throttles, new.last_status, new.place, new.class, new.cancel_requested, job.named,
    job.key, job.payload, job.labels, job.traceparent, job.calls, new.last_error, new.result,
    new.finished_at, job.run
)
insert into finished_job (
  seq, created_at, flow, turn, due_at, updated_at, call, first_sent_at, version, attempts, crashes, throttles,
    last_status, place, class, cancel_requested, named, key, payload, labels, traceparent, calls, last_error, result, finished_at, run
)
select *
from gone

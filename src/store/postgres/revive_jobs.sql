-- Dead jobs come back to the hot table. Relies on finished_seq of finished_dead. The parameters are those of update_jobs.
with gone as (
  delete from finished_job as dead
  using unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
    $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[],
    $15::bigint[], $16::text[], $17::text[])
    as new(seq, place, class, turn, key_hash, version, attempts, crashes, throttles, due_at, updated_at, finished_at,
    cancel_requested, first_sent_at, last_status, last_error, result)
  where dead.seq = new.seq
    and dead.place = 6
  returning
    dead.seq, dead.created_at, dead.flow, new.turn, new.due_at, new.updated_at, dead.call, new.first_sent_at, new.version,
    new.attempts, new.crashes, new.throttles, new.last_status, new.place, new.class, new.cancel_requested, dead.named,
    dead.key, dead.payload, dead.labels, dead.traceparent, dead.calls, new.last_error, new.result,
    new.key_hash, dead.run
)
insert into job (
  seq, created_at, flow, turn, due_at, updated_at, call, first_sent_at, version, attempts, crashes, throttles,
    last_status, place, class, cancel_requested, named, key, payload, labels, traceparent, calls, last_error, result, key_hash, run
)
select *
from gone

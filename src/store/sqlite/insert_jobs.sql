-- New jobs. The tuple is repeated for as many rows as go in at once; rows of nulls fill up. Relies on no index; feeds job_ready or job_due
-- or job_apart, and job_by_key.
insert into job (
  seq, created_at, flow, place, class, turn, key_hash, version, attempts, crashes, throttles, due_at, updated_at,
  cancel_requested, key, payload, labels, traceparent, run
)
select *
from (
  values (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, ?, ?, 0, ?, ?, ?, ?, ?)
)
where column1 is not null

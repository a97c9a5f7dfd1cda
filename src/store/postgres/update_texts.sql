-- The texts of waiting jobs that took a newer change in (arrays: $1 number, $2 payload, $3 labels, $4 traceparent, $5 is 1
-- when an idempotency key goes with it now). By primary key.
update job
set
  payload = new.payload,
  labels = new.labels,
  traceparent = new.traceparent,
  named = greatest(job.named, new.named)
from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[])
  as new(seq, payload, labels, traceparent, named)
where job.seq = new.seq

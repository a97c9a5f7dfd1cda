-- The texts of waiting jobs that took a newer change in. By rowid.
with new (seq, payload, labels, traceparent) as (
  values (?, ?, ?, ?)
)
update job
set
  payload = new.payload,
  labels = new.labels,
  traceparent = new.traceparent
from new
where job.seq = new.seq

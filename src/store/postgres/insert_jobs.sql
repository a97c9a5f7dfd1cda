-- New jobs, numbered in their order; answers with the numbers. job_head refuses a second first job of a key, which another
-- daemon may have added meanwhile.
insert into job (
  seq, turn, created_at, updated_at, flow, place, class, key_hash, version, due_at, named, key, payload, labels,
  traceparent, run, attempts, crashes, throttles, cancel_requested
)
select
  n.seq, n.seq, $1, $1, n.flow, n.place, n.class, n.key_hash, n.version, n.due_at, n.named, n.key, n.payload, n.labels,
  n.traceparent, n.run, 0, 0, 0, 0
from (
  select nextval('job_seq') as seq, u.*
  from unnest(
      $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::text[],
      $10::text[], $11::text[], $12::text[], $13::bigint[]
    ) as u(flow, place, class, key_hash, version, due_at, named, key, payload, labels, traceparent, run)
) as n
returning seq

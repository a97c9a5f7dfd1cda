-- Calls begin: their entries in the journal, and the claim of their jobs. $1 is the calls' numbers; all but their jobs ($11)
-- is told per begin. $13 and $14: the numbers of the jobs and the call of each; $10 is now. By primary key; claim.sql
-- locked the jobs. Keeps the former calls of a job, cut to what Job.calls can show. SQLite does it by begin_jobs and
-- insert_calls, which travel together anyway.
with journaled as (
  insert into call (
    id, provider, operation, lane, account, spends, granted_at, epoch, lease_until, begun_at, jobs, daemon, outside,
    ending
  )
  select
    n.id, n.provider, n.operation, n.lane, n.account, n.spends, n.granted_at, n.epoch, n.lease_until, $10, n.jobs, $12,
    n.outside, 0
  from unnest(
      $1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[],
      $11::bytea[], $15::bigint[]
    ) as n(id, provider, operation, lane, account, spends, granted_at, epoch, lease_until, jobs, outside)
)
update job
set
  place = 3,
  attempts = attempts + 1,
  calls = case when job.call is null then calls else right(coalesce(calls || ',', '') || job.call, 640) end,
  call = n.call,
  first_sent_at = coalesce(first_sent_at, $10),
  updated_at = $10
from unnest($13::bigint[], $14::bigint[]) as n(seq, call)
where job.seq = n.seq

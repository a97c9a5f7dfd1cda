-- The first job of each key (array $1 of key hashes, sorted) that stands behind nothing any more, locked: the job before it
-- has ended. Relies on job_head and job_behind. A key whose jobs went while the lock was waited for answers with nulls.
select k.hash,
  j.seq, j.created_at, j.flow, j.place, j.class, j.turn, j.key_hash, j.version, j.attempts, j.crashes,
  j.throttles, j.due_at, j.updated_at, null::bigint as finished_at, j.cancel_requested, j.call, j.first_sent_at, j.last_status,
  j.last_error, j.result
from unnest($1::bigint[]) as k(hash)
left join lateral (
  select *
  from job
  where job.key_hash = k.hash
    and job.place = 2
  order by job.turn
  limit 1
  for update
) as j on true
where exists (
    select 1
    from job as b
    where b.key_hash = k.hash
      and b.place = 2
  )
  and not exists (
    select 1
    from job as h
    where h.key_hash = k.hash
      and h.place <> 2
      and h.key_hash is not null
  )

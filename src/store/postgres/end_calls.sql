-- Ends those of the calls ($1 their numbers, sorted, $2 ending, $3 status, $4 error, $5 settled at, $8 latency, $9 headers, $10
-- bodies; $6 now) that have not
-- ended, and locks the hot jobs $7. By primary keys. One way to the server for two questions: the calls come first, each
-- with its jobs, then the jobs, without their texts. So calls are locked before jobs, and jobs in the order of heads.
-- SQLite's writer knows both from its desk. Open is 0 and nothing is below; written as `= 0` it would let the planner go
-- along call_open, all open calls for each of these.
with ended as (
  update call
  set
    ending = new.ending,
    status = new.status,
    error = new.error,
    settled_at = new.settled_at,
    latency = new.latency,
    headers = new.headers,
    bodies = new.bodies,
    ended_at = $6
  from unnest(
      $1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $8::bigint[], $9::text[], $10::text[]
    ) as new(id, ending, status, error, settled_at, latency, headers, bodies)
  where call.id = new.id
    and call.ending < 1
  returning call.id, call.jobs
), locked as (
  select
    j.seq, j.created_at, j.flow, j.place, j.class, j.turn, j.key_hash, j.version, j.attempts, j.crashes,
    j.throttles, j.due_at, j.updated_at, j.cancel_requested, j.call, j.first_sent_at, j.last_status, j.last_error, j.result
  from job as j
  where j.seq = any ($7)
  order by j.key_hash, j.seq
  for update
)
select
  id, jobs, null as seq, null as created_at, null as flow, null as place, null as class, null as turn, null as key_hash,
  null as version, null as attempts, null as crashes, null as throttles, null as due_at, null as updated_at,
  null::bigint as finished_at, null as cancel_requested, null as call, null as first_sent_at, null as last_status,
  null as last_error, null as result
from ended
union all
select
  null, null, seq, created_at, flow, place, class, turn, key_hash, version, attempts, crashes, throttles, due_at,
  updated_at, null, cancel_requested, call, first_sent_at, last_status, last_error, result
from locked

-- Claims jobs: ?1 their numbers, ?2 the first call, ?3 the step from job to job (1 single lane, 0 batch lane), ?4 now.
-- By rowid. Keeps the former calls, cut to what Job.calls can show.
update job
set
  place = 3,
  attempts = attempts + 1,
  calls = case when call is null then calls else substr(coalesce(calls || ',', '') || call, -640) end,
  call = ?2 + j.key * ?3,
  first_sent_at = coalesce(first_sent_at, ?4),
  updated_at = ?4
from json_each(?1) as j
where job.seq = j.value

-- How far job $1 got in call $2: $3, as of $4. Only while the call has it. By primary key.
insert into checkpoint (job, saved_at, body)
select seq, $4, $3
from job
where seq = $1
  and place = 3
  and call = $2
on conflict (job) do update
set
  saved_at = excluded.saved_at,
  body = excluded.body

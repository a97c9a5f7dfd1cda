-- The state of run $1: $2, since $3, ended at $4. By primary key.
update run
set
  state = $2,
  updated_at = $3,
  finished_at = $4
where seq = $1

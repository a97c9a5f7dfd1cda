-- Boot $1 and steady offset $2 in use.
update meta
set
  boot = $1,
  steady_offset = $2
where id = 1

-- Version $5 with the sealed text $6 takes the place of version $4 for provider $1 and account $2; ends the lease of $3, and
-- of nobody else. One row when it did. By primary key.
update token
set
  version = $5,
  sealed = $6,
  holder = nullif(holder, $3)
where provider = $1
  and account = $2
  and version = $4
returning version

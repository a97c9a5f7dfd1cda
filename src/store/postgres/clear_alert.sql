-- Alert $1 is over. One row, or none when it was not told last at $2. By primary key.
delete from alert
where name = $1
  and told_at = $2
returning told_at

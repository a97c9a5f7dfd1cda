-- Alert $1 is told again at $2 with $3. One row, or none when it was not told last at $4. By primary key.
update alert
set
  told_at = $2,
  detail = $3
where name = $1
  and told_at = $4
returning told_at

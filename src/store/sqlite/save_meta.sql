-- Numbers that must not go back: steady floor ?1, next job ?2, next call ?3.
update meta
set
  steady_floor = ?1,
  next_seq = ?2,
  next_call = ?3
where id = 1

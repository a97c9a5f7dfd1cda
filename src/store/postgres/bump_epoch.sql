-- Moves the epoch on from $1 and notes the limiter's server $2 that the next one stands for. Waits for begins under way.
update meta
set
  epoch = epoch + 1,
  limiter_run = $2
where id = 1
  and epoch = $1

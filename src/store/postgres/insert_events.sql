-- The end of every commit: $1 events that happened at $3, packed in $4, take the next numbers, the floor of the steady line
-- rises to $2, and others are told ($5). The lock on tail makes the order of events the order of commits, so it must be
-- the last statement before the commit. Answers with the first number and the transaction, for asking after its fate.
with tailed as (
  update tail
  set
    next_event = next_event + $1,
    steady_floor = greatest(steady_floor, $2)
  where id = 1
  returning next_event - $1 as first
), logged as (
  insert into event (first, count, at, data)
  select first, $1, $3, $4
  from tailed
  where $1 > 0
)
select first, pg_current_xact_id()::text, pg_notify('tidegate', $5)
from tailed

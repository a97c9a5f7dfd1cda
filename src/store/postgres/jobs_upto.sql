-- The last of the next $2 delivered jobs above number $1. Relies on finished_seq of each partition.
select max(seq)
from (
  select seq
  from finished_job
  where seq > $1
    and place = 5
  order by seq
  limit $2
) as n

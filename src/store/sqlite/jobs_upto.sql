-- The last of the next ?2 jobs above number ?1. By rowid.
select max(seq)
from (
  select seq
  from job
  where seq > ?1
  order by seq
  limit +?2
)

-- Where the window of a filtered list ends: the ($2 + 1)-th job below $1, hot or final. Along the primary key and
-- finished_seq of each partition, downwards.
select seq
from (
  (
    select seq
    from job
    where seq < $1
    order by seq desc
    limit $2 + 1
  )
  union all
  (
    select seq
    from finished_job
    where seq < $1
    order by seq desc
    limit $2 + 1
  )
) as j
order by seq desc
limit 1
offset $2

-- Up to ?2 rows of events from the one that holds the event after ?1 on. By primary key.
select first, at, data
from event
where first >= coalesce((
    select first
    from event
    where first <= ?1 + 1
    order by first desc
    limit 1
  ), 0)
order by first
limit +?2

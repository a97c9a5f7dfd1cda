-- Of the oldest ?2 rows of events, removes those from before ?1, never the newest row: it carries the sequence on.
-- By rowid.
delete from event
where first in (
  select first
  from (
    select first, at
    from event
    order by first
    limit +?2
  )
  where at < ?1
    and first < (select max(first) from event)
)

-- Of the oldest $2 rows of events, removes those from before $1, never the newest row: the log's bounds are read from it.
-- By primary key.
delete from event
where first = any (array(
    select w.first
    from (
      select first, at
      from event
      order by first
      limit $2
    ) as w
    where w.at < $1
      and w.first < (
        select first
        from event
        order by first desc
        limit 1
      )
  ))

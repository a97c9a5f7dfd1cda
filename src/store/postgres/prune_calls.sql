-- Of the oldest $2 calls, removes those that settled before $1 (steady). By primary key.
delete from call
where id = any (array(
    select w.id
    from (
      select id, ending, settled_at
      from call
      order by id
      limit $2
    ) as w
    where w.ending <> 0
      and w.settled_at < $1
  ))

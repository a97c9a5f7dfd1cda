-- Of the oldest ?2 calls, removes those that settled before ?1 (steady). By rowid.
delete from call
where id in (
  select id
  from (
    select id, ending, settled_at
    from call
    order by id
    limit +?2
  )
  where ending <> 0
    and settled_at < ?1
)

-- Removes up to ?2 flows with nothing to do that were touched before ?1 last and are older than every event, but for
-- those of this commit (JSON array ?3). Relies on flow_idle.
delete from flow
where id in (
  select id
  from flow
  where busy = 0
    and touched_at < min(?1, coalesce((select at from event order by first limit 1), ?1))
    and id not in (select value from json_each(?3))
  order by touched_at, id
  limit +?2
)
returning id

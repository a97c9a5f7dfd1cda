-- Removes up to $2 flows with nothing to do that were touched before $1 last and are older than every event, but for
-- those of this commit (array $3) and those that another daemon has in hand. Relies on flow_idle, all of which it reads.
with old as materialized (
  select id
  from flow
  where not busy
    and touched_at < least($1, coalesce((
      select at
      from event
      order by first
      limit 1
    ), $1))
    and id <> all ($3)
  order by touched_at, id
  limit $2
  for update skip locked
)
delete from flow
using old
where flow.id = old.id
returning flow.id

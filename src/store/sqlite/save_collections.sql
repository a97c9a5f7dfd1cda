-- New and changed collections. The tuple is repeated; rows of nulls fill up.
insert into collection (name, live, last_change, forgotten, shape, pull)
select *
from (
  values (?, ?, ?, ?, ?, ?)
)
where column1 is not null
on conflict (name) do update set
  live = excluded.live,
  last_change = excluded.last_change,
  forgotten = excluded.forgotten,
  shape = excluded.shape,
  pull = excluded.pull

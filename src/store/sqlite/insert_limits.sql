-- What the limiter saves of itself. The tuple is repeated; rows of nulls fill up.
insert or replace into saved_limit (name, body)
select *
from (
  values (?, ?)
)
where column1 is not null

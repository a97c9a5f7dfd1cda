-- Rows of indexes. The tuple is repeated; rows of nulls fill up.
insert or ignore into record_index (collection, name, value, id)
select *
from (
  values (?, ?, ?, ?)
)
where column1 is not null

-- Numbers of measures. The tuple is repeated; rows of nulls fill up.
insert or ignore into record_point (collection, aggregate, bucket, grp, measure, value, id)
select *
from (
  values (?, ?, ?, ?, ?, ?, ?)
)
where column1 is not null

-- Groups of aggregates (JSON array ?1 of collection, aggregate, bucket, group).
select g.collection, g.aggregate, g.bucket, g.grp, g.sums
from json_each(?1) as k
cross join record_group as g
  on g.collection = k.value ->> 0
  and g.aggregate = k.value ->> 1
  and g.bucket = k.value ->> 2
  and g.grp = k.value ->> 3

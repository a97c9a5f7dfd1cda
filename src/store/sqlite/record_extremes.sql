-- Smallest and largest number of measures of groups (JSON array ?1 of collection, aggregate, bucket, group, measure): the
-- two ends of an ordered index.
select
  k.value ->> 0, k.value ->> 1, k.value ->> 2, k.value ->> 3, k.value ->> 4,
  (
    select p.value
    from record_point as p
    where p.collection = k.value ->> 0
      and p.aggregate = k.value ->> 1
      and p.bucket = k.value ->> 2
      and p.grp = k.value ->> 3
      and p.measure = k.value ->> 4
    order by p.value
    limit 1
  ),
  (
    select p.value
    from record_point as p
    where p.collection = k.value ->> 0
      and p.aggregate = k.value ->> 1
      and p.bucket = k.value ->> 2
      and p.grp = k.value ->> 3
      and p.measure = k.value ->> 4
    order by p.value desc
    limit 1
  )
from json_each(?1) as k

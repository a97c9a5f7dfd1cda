-- Smallest and largest number of measures of groups, by collection ($1), aggregate ($2), bucket ($3), group ($4) and
-- measure ($5): the two ends of an ordered index.
select
  k.collection, k.aggregate, k.bucket, k.grp, k.measure,
  (
    select p.value
    from record_point as p
    where p.collection = k.collection
      and p.aggregate = k.aggregate
      and p.bucket = k.bucket
      and p.grp = k.grp
      and p.measure = k.measure
    order by p.value
    limit 1
  ),
  (
    select p.value
    from record_point as p
    where p.collection = k.collection
      and p.aggregate = k.aggregate
      and p.bucket = k.bucket
      and p.grp = k.grp
      and p.measure = k.measure
    order by p.value desc
    limit 1
  )
from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[]) as k(collection, aggregate, bucket, grp, measure)

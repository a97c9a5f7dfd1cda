-- Groups of aggregates, by collection ($1), aggregate ($2), bucket ($3) and group ($4).
select g.collection, g.aggregate, g.bucket, g.grp, g.sums
from unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) as k(collection, aggregate, bucket, grp)
join record_group as g
  on g.collection = k.collection
  and g.aggregate = k.aggregate
  and g.bucket = k.bucket
  and g.grp = k.grp

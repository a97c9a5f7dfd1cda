-- Takes empty groups away: collection ($1), aggregate ($2), bucket ($3), group ($4).
delete from record_group as g
using unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) as k(collection, aggregate, bucket, grp)
where g.collection = k.collection
  and g.aggregate = k.aggregate
  and g.bucket = k.bucket
  and g.grp = k.grp

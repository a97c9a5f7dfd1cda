-- Takes numbers of measures away: collection ($1), aggregate ($2), bucket ($3), group ($4), measure ($5), value ($6), id
-- ($7).
delete from record_point as p
using unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::text[])
  as k(collection, aggregate, bucket, grp, measure, value, id)
where p.collection = k.collection
  and p.aggregate = k.aggregate
  and p.bucket = k.bucket
  and p.grp = k.grp
  and p.measure = k.measure
  and p.value = k.value
  and p.id = k.id

-- Up to $5 groups of aggregate $2 of collection $1 in the buckets from $3 to before $4. One range of the primary key.
select grp, sums
from record_group
where collection = $1
  and aggregate = $2
  and bucket >= $3
  and bucket < $4
order by bucket, grp
limit $5

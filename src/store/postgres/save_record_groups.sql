-- New and changed groups: collection ($1), aggregate ($2), bucket ($3), group ($4), sums ($5), rank ($6).
insert into record_group (collection, aggregate, bucket, grp, sums, rank)
select *
from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::double precision[])
on conflict (collection, aggregate, bucket, grp) do update set
  sums = excluded.sums,
  rank = excluded.rank

-- New and changed groups. The tuple is repeated; rows of nulls fill up.
insert into record_group (collection, aggregate, bucket, grp, sums, rank)
select *
from (
  values (?, ?, ?, ?, ?, ?)
)
where column1 is not null
on conflict (collection, aggregate, bucket, grp) do update set
  sums = excluded.sums,
  rank = excluded.rank

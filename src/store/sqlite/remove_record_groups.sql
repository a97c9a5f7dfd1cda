-- Takes empty groups away (JSON array ?1 of collection, aggregate, bucket, group).
delete from record_group
where (collection, aggregate, bucket, grp) in (
  select value ->> 0, value ->> 1, value ->> 2, value ->> 3
  from json_each(?1)
)

-- Takes numbers of measures away (JSON array ?1 of collection, aggregate, bucket, group, measure, value, id).
delete from record_point
where (collection, aggregate, bucket, grp, measure, value, id) in (
  select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6
  from json_each(?1)
)

-- Takes rows of indexes away (JSON array ?1 of collection, index, value, id).
delete from record_index
where (collection, name, value, id) in (
  select value ->> 0, value ->> 1, value ->> 2, value ->> 3
  from json_each(?1)
)

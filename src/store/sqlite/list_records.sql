-- Up to ?3 live records of collection ?1 above id ?2, in the order of ids. See list_records_by_index.sql.
select
  collection, id, data, hash, version, change, deleted, created_at, updated_at
from record
where collection = ?1
  and id > ?2
  and deleted = 0
order by id
limit ?3

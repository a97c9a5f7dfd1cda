-- Up to ?3 records of collection ?1 by their last change, above ?2, deleted ones too. Relies on record_by_change.
select
  collection, id, data, hash, version, change, deleted, created_at, updated_at
from record
where collection = ?1
  and change > ?2
order by change
limit ?3

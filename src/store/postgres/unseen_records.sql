-- Up to $4 live records of collection $1 that no pull since $2 saw and that have not changed since change $3. Relies on
-- record_unseen.
select
  collection, id, data, hash, version, change, deleted, created_at, updated_at, facts, seen
from record
where collection = $1
  and deleted = 0
  and seen < $2
  and change <= $3
order by seen, id
limit $4

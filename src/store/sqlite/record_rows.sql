-- Records with what is kept beside them, by collection and id (JSON array ?1 of pairs).
select
  r.collection, r.id, r.data, r.hash, r.version, r.change, r.deleted, r.created_at, r.updated_at, r.facts, r.seen
from json_each(?1) as k
cross join record as r on r.collection = k.value ->> 0 and r.id = k.value ->> 1

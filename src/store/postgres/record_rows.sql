-- Records with what is kept beside them, by collection ($1) and id ($2).
select
  r.collection, r.id, r.data, r.hash, r.version, r.change, r.deleted, r.created_at, r.updated_at, r.facts, r.seen
from unnest($1::text[], $2::text[]) as k(collection, id)
join record as r on r.collection = k.collection and r.id = k.id

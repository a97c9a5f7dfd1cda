-- New and changed records, as arrays of columns. By primary key.
insert into record (
  collection, id, data, hash, version, change, deleted, created_at, updated_at, facts, seen
)
select *
from unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
    $10::text[], $11::bigint[]
  )
on conflict (collection, id) do update set
  data = excluded.data,
  hash = excluded.hash,
  version = excluded.version,
  change = excluded.change,
  deleted = excluded.deleted,
  created_at = excluded.created_at,
  updated_at = excluded.updated_at,
  facts = excluded.facts,
  seen = excluded.seen

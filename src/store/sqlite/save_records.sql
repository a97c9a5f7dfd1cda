-- New and changed records. The tuple is repeated; rows of nulls fill up.
insert into record (
  collection, id, data, hash, version, change, deleted, created_at, updated_at, facts, seen
)
select *
from (
  values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
)
where column1 is not null
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

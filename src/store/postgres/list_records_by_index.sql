-- Up to $3 live records of collection $1 above id $2 whose value in index $4 is $5, in the order of ids: one range of
-- record_index. See list_records.sql.
select
  r.collection, r.id, r.data, r.hash, r.version, r.change, r.deleted, r.created_at, r.updated_at
from record_index as i
join record as r on r.collection = i.collection and r.id = i.id
where i.collection = $1
  and i.name = $4
  and i.value = $5
  and i.id > $2
order by i.id
limit $3

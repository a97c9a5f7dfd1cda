-- Takes rows of indexes away: collection ($1), index ($2), value ($3), id ($4).
delete from record_index as i
using unnest($1::text[], $2::text[], $3::text[], $4::text[]) as k(collection, name, value, id)
where i.collection = k.collection
  and i.name = k.name
  and i.value = k.value
  and i.id = k.id

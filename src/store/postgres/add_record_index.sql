-- Rows of indexes: collection ($1), index ($2), value ($3), id ($4).
insert into record_index (collection, name, value, id)
select *
from unnest($1::text[], $2::text[], $3::text[], $4::text[])
on conflict do nothing

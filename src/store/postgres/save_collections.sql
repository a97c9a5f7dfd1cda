-- Collections: name ($1), live ($2), last_change ($3), forgotten ($4), shape ($5), pull ($6). Their rows are locked.
insert into collection (name, live, last_change, forgotten, shape, pull)
select *
from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[])
on conflict (name) do update set
  live = excluded.live,
  last_change = excluded.last_change,
  forgotten = excluded.forgotten,
  shape = excluded.shape,
  pull = excluded.pull

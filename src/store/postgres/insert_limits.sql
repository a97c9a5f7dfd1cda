-- What the limiter saves of itself (arrays: $1 name, $2 body).
insert into saved_limit (name, body)
select *
from unnest($1::text[], $2::text[]) as n(name, body)
on conflict (name) do update
set body = excluded.body

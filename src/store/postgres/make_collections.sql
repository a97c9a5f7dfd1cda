-- Rows of collections that may be new, so that there is something to lock.
insert into collection (name, live, last_change, forgotten, shape)
select u.name, 0, 0, 0, ''
from unnest($1::text[]) as u(name)
order by u.name
on conflict (name) do nothing

-- Collections by name.
select name, live, last_change, forgotten, shape, pull
from collection
where name = any ($1)
order by name

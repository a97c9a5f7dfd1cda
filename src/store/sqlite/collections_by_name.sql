-- Collections by name (JSON array ?1).
select name, live, last_change, forgotten, shape, pull
from collection
where name in (select value from json_each(?1))
order by name

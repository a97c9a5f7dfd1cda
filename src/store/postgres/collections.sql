-- Every collection, by name.
select name, live, last_change, forgotten, shape, pull
from collection
order by name

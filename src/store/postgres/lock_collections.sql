-- Collections by name, locked: whoever writes to one waits for the other, so that changes are numbered in the order of
-- commits, and sums and pulls are read as they are. See collections_by_name.sql.
select name, live, last_change, forgotten, shape, pull
from collection
where name = any ($1)
order by name
for update

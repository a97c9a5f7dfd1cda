-- What the limiter saved last.
select name, body
from saved_limit
order by name

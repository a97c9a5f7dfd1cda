-- Alerts that are raised, by name.
select name, provider, raised_at, told_at, detail
from alert
order by name

-- All declarations in force.
select name, source, revision, paused, applied_at, actor, memory
from provider
order by name

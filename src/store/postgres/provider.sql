-- The declaration of provider $1, locked. By primary key.
select name, source, revision, paused, applied_at, actor, memory
from provider
where name = $1
for update

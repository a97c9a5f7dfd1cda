-- Jobs of those of the calls (array $1) that have not ended, locked. By primary key.
select c.id, c.jobs
from call as c
where c.id = any ($1)
  and c.ending = 0
order by c.id
for update

-- Jobs of those of the calls (JSON array ?1) that have not ended. By rowid.
select c.id, c.jobs
from json_each(?1) as n
cross join call as c on c.id = n.value
where c.ending = 0

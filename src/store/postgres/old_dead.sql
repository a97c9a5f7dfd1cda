-- Up to $2 dead jobs that ended before $1, oldest first. Relies on finished_at of finished_dead.
select seq
from finished_dead
where finished_at < $1
order by finished_at, seq
limit $2

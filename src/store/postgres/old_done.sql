-- Up to $2 delivered or cancelled jobs that ended before $1, oldest first. Relies on finished_at of the days, oldest first.
select seq
from finished_done
where finished_at < $1
order by finished_at, seq
limit $2

-- Where the window of a filtered list ends: the ?2-th job below ?1. By rowid, downwards.
select seq
from job
where seq < ?1
order by seq desc
limit 1
offset ?2

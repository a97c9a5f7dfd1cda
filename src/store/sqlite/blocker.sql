-- The first hot job of a key hash ?1. Relies on job_by_key.
select seq
from job
where key_hash = ?1
order by turn
limit 1

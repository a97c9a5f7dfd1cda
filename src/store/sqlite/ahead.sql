-- How many ready jobs of flow ?1 go before turn ?3 in class ?2, counted up to ?4. Relies on job_ready.
select count(*)
from (
  select 1
  from job
  where flow = ?1
    and class = ?2
    and turn < ?3
    and place = 0
  limit +?4
)

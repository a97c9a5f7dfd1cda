-- First and last turn of the ready jobs of flow $1 in class $2. Relies on job_ready, from both ends.
select
  (
    select turn
    from job
    where flow = $1
      and class = $2
      and place = 0
    order by turn
    limit 1
  ),
  (
    select turn
    from job
    where flow = $1
      and class = $2
      and place = 0
    order by turn desc
    limit 1
  )

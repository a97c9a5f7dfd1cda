-- Notes run $1 at those of its delivered jobs above number $2 and up to $3 that a daemon of before wrote without it. Relies
-- on finished_seq of each partition.
update finished_job
set run = $1
where seq > $2
  and seq <= $3
  and run = 0
  and place = 5
  and flow in (select id from flow where run = $1 and run > 0)

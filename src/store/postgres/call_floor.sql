-- Where the window of a filtered list of calls ends: the $2-th call below $1, from 0. By primary key, downwards.
select id
from call
where id < $1
order by id desc
limit 1
offset $2

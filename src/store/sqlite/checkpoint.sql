-- How far job ?1 got. By primary key.
select body
from checkpoint
where job = ?1

-- The one row of meta.
select epoch, boot, steady_offset, steady_floor, next_seq, next_call, limiter_run
from meta
where id = 1

-- The epoch, which must hold until the commit: bump_epoch waits. SQLite's is on the desk.
select epoch
from meta
where id = 1
for share

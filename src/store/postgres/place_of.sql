-- Where hot job $1 stands now, and its key hash. By primary key.
select place, key_hash
from job
where seq = $1

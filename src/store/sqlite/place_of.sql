-- Where job ?1 stands now, and its key hash. By rowid.
select place, key_hash
from job
where seq = ?1

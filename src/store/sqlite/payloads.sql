-- Payloads of jobs (JSON array ?1), for merging. By rowid.
select j.seq, j.payload
from json_each(?1) as n
cross join job as j on j.seq = n.value

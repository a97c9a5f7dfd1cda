-- Payloads of jobs (array $1), for merging. By primary key.
select seq, payload
from job
where seq = any ($1)

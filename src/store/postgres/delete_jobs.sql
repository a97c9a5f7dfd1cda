-- Removes final jobs (array $1). Relies on finished_seq of each partition.
delete from finished_job
using unnest($1::bigint[]) as n(seq)
where finished_job.seq = n.seq

-- The days of finished jobs that have a partition, by its name.
select c.relname::text
from pg_inherits as i
join pg_class as c on c.oid = i.inhrelid
where i.inhparent = 'finished_done'::regclass
order by c.relname

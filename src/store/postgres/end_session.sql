-- Ends the session in which transaction $1 is still in progress: its daemon has lost it, and asks after its fate.
select pg_terminate_backend(pid)
from pg_stat_activity
where backend_xid = ($1::xid8)::xid

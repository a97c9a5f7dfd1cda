-- The next $1 numbers of calls.
select nextval('call_seq')
from generate_series(1, $1)

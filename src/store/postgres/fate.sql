-- What became of transaction $1 whose commit was not answered.
select pg_xact_status($1::xid8)

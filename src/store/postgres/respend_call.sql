-- What a call spent after all: $1 its number, $2 the spends. By primary key; open_call_jobs locked it. Before its end is
-- written, or it stays as it is.
update call
set spends = $2
where id = $1
  and ending = 0

-- What a call spent after all: $1 its number, $2 the spends. By primary key, after end_calls ended and locked it in this
-- transaction: it is asked only for calls that this commit ended. SQLite writes it before the end.
update call
set spends = $2
where id = $1

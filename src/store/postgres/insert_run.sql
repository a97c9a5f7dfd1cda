-- A new run; answers with its number. $1 now, $2 name, $3 tenant, $4 labels, $5 state, $6 which run it undoes. SQLite makes it in save_runs.
insert into run (seq, created_at, updated_at, display_name, tenant, labels, state, undo_of)
values (nextval('run_seq'), $1, $1, $2, $3, $4, $5, $6)
returning seq

-- A new run; answers with its number. $1 now, $2 name, $3 tenant, $4 labels, $5 state. SQLite makes it in save_runs.
insert into run (seq, created_at, updated_at, display_name, tenant, labels, state)
values (nextval('run_seq'), $1, $1, $2, $3, $4, $5)
returning seq

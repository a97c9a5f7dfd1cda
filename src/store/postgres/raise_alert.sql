-- Raises alert $1 of provider $2, at $3, told at $4, with what is said $5. One row, or none when it is raised. By
-- primary key.
insert into alert (name, provider, raised_at, told_at, detail)
values ($1, $2, $3, $4, $5)
on conflict (name) do nothing
returning told_at

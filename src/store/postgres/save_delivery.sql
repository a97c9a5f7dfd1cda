-- Remembers a webhook's message by its mark $1 until $2. One row when it was not known. By primary key.
insert into delivery (mark, forget_at)
values ($1, $2)
on conflict (mark) do nothing
returning forget_at

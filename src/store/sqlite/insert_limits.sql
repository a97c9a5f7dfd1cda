-- What the limiter saves of itself. The tuple is repeated.
insert or replace into saved_limit (name, body)
values (?, ?)

-- Forgets schedule ?1. By primary key.
delete from schedule
where name = ?1

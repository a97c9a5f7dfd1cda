-- Forgets the declaration of provider $1. By primary key.
delete from provider
where name = $1

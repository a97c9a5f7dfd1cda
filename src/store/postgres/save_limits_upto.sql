-- The last call that the saved limits know of.
update meta
set limits_upto = $1
where id = 1

-- The events of a commit: ?2 of them from number ?1 on.
insert into event (first, count, at, data)
values (?1, ?2, ?3, ?4)

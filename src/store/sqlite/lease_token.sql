-- Holder ?3 may refresh the token of provider ?1 and account ?2 for ?4 microseconds from ?5 on, unless another one may. One
-- row when it may: what is there. By primary key; PostgreSQL's sibling asks its own clock.
insert into token (provider, account, version, sealed, holder, lease_until)
values (?1, ?2, 0, x'', ?3, ?5 + ?4)
on conflict (provider, account) do update
set
  holder = excluded.holder,
  lease_until = excluded.lease_until
where token.holder is null
  or token.holder = excluded.holder
  or token.lease_until <= ?5
returning version, sealed

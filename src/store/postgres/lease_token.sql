-- Holder $3 may refresh the token of provider $1 and account $2 for $4 microseconds from now on, unless another one may. One
-- row when it may: what is there. By primary key.
insert into token (provider, account, version, sealed, holder, lease_until)
select $1, $2, 0, ''::bytea, $3, (extract(epoch from clock_timestamp()) * 1000000)::bigint + $4
on conflict (provider, account) do update
set
  holder = excluded.holder,
  lease_until = excluded.lease_until
where token.holder is null
  or token.holder = excluded.holder
  -- Now, as the row that was to be inserted has it.
  or token.lease_until <= excluded.lease_until - $4
returning version, sealed

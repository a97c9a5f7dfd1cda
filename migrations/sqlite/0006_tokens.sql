-- Tokens that an endpoint gave out, sealed, by provider and account ("": the provider's own). Version 0: none yet. A holder
-- may refresh until lease_until.
create table token (
  provider text not null,
  account text not null,
  version integer not null,
  sealed blob not null,
  holder text,
  lease_until integer not null,
  primary key (provider, account)
) strict, without rowid;

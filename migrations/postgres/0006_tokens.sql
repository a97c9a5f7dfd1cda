-- Tokens that an endpoint gave out, sealed, by provider and account ("": the provider's own). Version 0: none yet. A holder
-- may refresh until lease_until, by the database's clock.
create table token (
  provider text collate "C" not null,
  account text collate "C" not null,
  version bigint not null,
  sealed bytea not null,
  holder text collate "C",
  lease_until bigint not null,
  primary key (provider, account)
);

-- What several daemons share of each other: who lives, and who holds which partition of which provider.

alter table meta add column limiter_run text;

-- Who began the call: after a restart a daemon ends the calls of its former self without waiting for their lease.
alter table call add column daemon text collate "C" not null default '';
create index call_of_daemon on call (daemon, id) where ending = 0;

-- A daemon lives until heartbeat_until, by the database's clock.
create table daemon (
  id text collate "C" primary key,
  name text not null,
  started_at bigint not null,
  heartbeat_until bigint not null
) with (fillfactor = 50);

-- Every change of owner bumps the fence; a begin under an older one begins nothing. Begins lock the row for share.
create table partition (
  provider text collate "C" not null,
  shard smallint not null,
  owner text collate "C",
  fence bigint not null,
  primary key (provider, shard)
) with (fillfactor = 50);

create index partition_of_owner on partition (owner) where owner is not null;

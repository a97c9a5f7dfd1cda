-- Collections of records, what finds and sums them, and the pulls that fill them. Indexes and aggregates are declared, so
-- their rows are generic: a declaration needs no change of the schema.

create table collection (
  name text collate "C" primary key,
  -- Records that are not deleted.
  live bigint not null,
  last_change bigint not null,
  -- Changes up to here may be gone.
  forgotten bigint not null,
  -- Fingerprint of the indexes and aggregates that its records are in.
  shape text collate "C" not null,
  -- The newest pull, as JSON.
  pull text
);

create table record (
  collection text collate "C" not null,
  id text collate "C" not null,
  data text collate "C" not null,
  hash text collate "C" not null,
  version bigint not null,
  change bigint not null,
  deleted bigint not null check (deleted in (0, 1)),
  created_at bigint not null,
  updated_at bigint not null,
  -- What indexes and aggregates hold of it, as JSON.
  facts text collate "C" not null,
  -- The last full pull that saw it.
  seen bigint not null,
  primary key (collection, id)
);

create index record_by_change on record (collection, change);
create index record_unseen on record (collection, seen) where deleted = 0;
create index record_deleted on record (collection, updated_at) where deleted = 1;

create table record_index (
  collection text collate "C" not null,
  name text collate "C" not null,
  value text collate "C" not null,
  id text collate "C" not null,
  primary key (collection, name, value, id)
);

-- Sums of a group in a bucket of time; the smallest bigint stands for all time.
create table record_group (
  collection text collate "C" not null,
  aggregate text collate "C" not null,
  bucket bigint not null,
  grp text collate "C" not null,
  sums text collate "C" not null,
  rank double precision not null,
  primary key (collection, aggregate, bucket, grp)
);

create index record_group_by_rank on record_group (collection, aggregate, bucket, rank, grp);

-- Numbers of measures that have a smallest and a largest.
create table record_point (
  collection text collate "C" not null,
  aggregate text collate "C" not null,
  bucket bigint not null,
  grp text collate "C" not null,
  measure bigint not null,
  value bigint not null,
  id text collate "C" not null,
  primary key (collection, aggregate, bucket, grp, measure, value, id)
);

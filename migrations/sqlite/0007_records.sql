-- Collections of records, what finds and sums them, and the pulls that fill them. Indexes and aggregates are declared, so
-- their rows are generic: a declaration needs no change of the schema.

create table collection (
  name text primary key,
  -- Records that are not deleted.
  live integer not null,
  last_change integer not null,
  -- Changes up to here may be gone.
  forgotten integer not null,
  -- Fingerprint of the indexes and aggregates that its records are in.
  shape text not null,
  -- The newest pull, as JSON.
  pull text
) strict, without rowid;

create table record (
  collection text not null,
  id text not null,
  data text not null,
  hash text not null,
  version integer not null,
  change integer not null,
  deleted integer not null check (deleted in (0, 1)),
  created_at integer not null,
  updated_at integer not null,
  -- What indexes and aggregates hold of it, as JSON.
  facts text not null,
  -- The last full pull that saw it.
  seen integer not null,
  primary key (collection, id)
) strict;

create index record_by_change on record (collection, change);
create index record_unseen on record (collection, seen) where deleted = 0;
create index record_deleted on record (collection, updated_at) where deleted = 1;

create table record_index (
  collection text not null,
  name text not null,
  value text not null,
  id text not null,
  primary key (collection, name, value, id)
) strict, without rowid;

-- Sums of a group in a bucket of time; the smallest integer stands for all time.
create table record_group (
  collection text not null,
  aggregate text not null,
  bucket integer not null,
  grp text not null,
  sums text not null,
  rank real not null,
  primary key (collection, aggregate, bucket, grp)
) strict, without rowid;

create index record_group_by_rank on record_group (collection, aggregate, bucket, rank, grp);

-- Numbers of measures that have a smallest and a largest.
create table record_point (
  collection text not null,
  aggregate text not null,
  bucket integer not null,
  grp text not null,
  measure integer not null,
  value integer not null,
  id text not null,
  primary key (collection, aggregate, bucket, grp, measure, value, id)
) strict, without rowid;

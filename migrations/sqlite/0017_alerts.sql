-- Alerts that are raised.
create table alert (
  name text primary key,
  provider text not null,
  raised_at integer not null,
  told_at integer not null,
  detail text not null
) strict, without rowid;

-- Alerts that are raised.
create table alert (
  name text collate "C" primary key,
  provider text collate "C" not null,
  raised_at bigint not null,
  told_at bigint not null,
  detail text not null
);

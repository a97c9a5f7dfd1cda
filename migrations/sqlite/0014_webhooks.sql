-- Messages that webhooks brought, by what stands for each, so that one that comes again starts nothing.
create table delivery (
  mark blob primary key,
  forget_at integer not null
) strict, without rowid;

create index delivery_forget_at on delivery (forget_at);

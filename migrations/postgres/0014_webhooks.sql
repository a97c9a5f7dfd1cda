-- Messages that webhooks brought, by what stands for each, so that one that comes again starts nothing.
create table delivery (
  mark bytea primary key,
  forget_at bigint not null
);

create index delivery_forget_at on delivery (forget_at);

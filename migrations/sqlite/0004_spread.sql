-- An account's jobs may be spread over parts, so that several daemons serve it: a flow for each. Flows of before are of
-- part 0, which is all that there is unless a provider says `spread`.
alter table flow add column part integer not null default 0;

drop index flow_by_key;
create unique index flow_by_key on flow (provider, operation, account, tenant, run, part);

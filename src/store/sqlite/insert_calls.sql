-- Journal entries of calls that begin. The tuple is repeated. Feeds call_open, and call_spent where limits are spent.
insert into call (
  id, provider, operation, lane, account, spends, granted_at, epoch, lease_until, jobs, begun_at, ending
)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)

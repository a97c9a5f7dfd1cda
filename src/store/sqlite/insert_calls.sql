-- Journal entries of calls that begin alike: ?1 JSON array of [their jobs, packed (packed.rs) and in hexadecimal; what
-- they spend, or null for ?7], ?2 number of the first call. Feeds call_open, and call_spent where limits are spent.
insert into call (
  id, provider, operation, lane, account, spends, granted_at, epoch, lease_until, jobs, begun_at, outside, ending
)
select
  ?2 + j.key, ?3, ?4, ?5, ?6, coalesce(j.value ->> 1, ?7), ?8, ?9, ?10, unhex(j.value ->> 0), ?11, ?12, 0
from json_each(?1) as j

-- Up to ?3 calls above ?2 that spent limits and were open or settled at ?1 (steady) or later. Relies on call_spent.
select id, spends, granted_at, epoch, settled_at, ending, case when outside > 0 then lease_until end
from call
where spends is not null
  and id > ?2
  and (settled_at is null or settled_at >= ?1)
order by id
limit +?3

-- The first ?4 groups of aggregate ?2 of collection ?1 in bucket ?3, largest first. Relies on record_group_by_rank.
select grp, sums
from record_group
where collection = ?1
  and aggregate = ?2
  and bucket = ?3
order by rank desc, grp desc
limit ?4

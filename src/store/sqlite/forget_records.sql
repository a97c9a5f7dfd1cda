-- Takes away up to ?3 records of collection ?1 that were deleted before ?2; answers with id and last change. Relies on
-- record_deleted.
delete from record
where (collection, id) in (
  select collection, id
  from record
  where collection = ?1
    and deleted = 1
    and updated_at < ?2
  order by updated_at, id
  limit ?3
)
returning id, change

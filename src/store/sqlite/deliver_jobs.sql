-- Jobs that were delivered and left neither error nor result: ?1 their numbers, ?2 the status, ?3 now. By rowid.
-- The cheap sibling of update_jobs.
update job
set
  place = 5,
  key_hash = null,
  last_status = coalesce(?2, last_status),
  last_error = null,
  updated_at = ?3,
  finished_at = ?3
where seq in (select value from json_each(?1))

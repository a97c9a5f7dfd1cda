-- Is any hot job of this key hash (?1)? Relies on job_by_key.
select exists (
  select 1
  from job
  where key_hash = ?1
)

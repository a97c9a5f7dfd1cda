-- Removes jobs (JSON array ?1). By rowid.
delete from job
where seq in (select value from json_each(?1))

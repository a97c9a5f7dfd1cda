-- Commits that add, end or change jobs go side by side; own_keys waits for them. The number is ours alone. SQLite has one
-- writer.
select pg_advisory_xact_lock_shared(7598263422144913004)

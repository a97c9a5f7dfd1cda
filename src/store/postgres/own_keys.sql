-- A commit that was in another's way goes alone the next time, so that it cannot be again. See share_keys.
select pg_advisory_xact_lock(7598263422144913004)

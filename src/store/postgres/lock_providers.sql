-- Changes of declarations go one after the other, those of new providers too. The number is ours alone.
select pg_advisory_xact_lock(7598263422144913001)

-- Forgets what the limiter saved before.
delete from saved_limit

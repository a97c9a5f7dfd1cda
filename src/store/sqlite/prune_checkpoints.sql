-- Up to ?2 checkpoints from before ?1. Relies on checkpoint_saved.
delete from checkpoint
where job in (
  select job
  from checkpoint
  where saved_at < ?1
  order by saved_at
  limit ?2
)

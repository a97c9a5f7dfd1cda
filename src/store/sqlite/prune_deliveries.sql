-- Forgets up to ?2 messages of webhooks whose time was over before ?1. By delivery_forget_at.
delete from delivery
where mark in (
  select mark
  from delivery
  where forget_at < ?1
  order by forget_at
  limit +?2
)

-- Forgets up to $2 messages of webhooks whose time was over before $1. By delivery_forget_at.
delete from delivery
where mark = any (array(
    select d.mark
    from delivery as d
    where d.forget_at < $1
    order by d.forget_at
    limit $2
  ))

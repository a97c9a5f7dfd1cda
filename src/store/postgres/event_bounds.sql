-- First and last number in the event log. By primary key, from both ends.
select
  (
    select first
    from event
    order by first
    limit 1
  ),
  (
    select first + count - 1
    from event
    order by first desc
    limit 1
  )

-- Removes up to ?2 final runs without a flow that ended before ?1 and are older than every event, but for those of this
-- commit (JSON array ?3). Relies on run_final, flow_of_run.
delete from run
where seq in (
  select seq
  from run
  where state in (4, 5)
    and finished_at < min(?1, coalesce((select at from event order by first limit 1), ?1))
    and seq not in (select value from json_each(?3))
    and not exists (select 1 from flow where flow.run = run.seq and flow.run > 0)
  order by finished_at, seq
  limit +?2
)
returning seq

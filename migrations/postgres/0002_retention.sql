-- When a flow was touched last, so that retention can tell which ones nothing names any more; by the latest wall time
-- seen, since clocks step back. A schema of before has not noted it: its flows count from now. The time itself is in no
-- index, unlike SQLite's: it changes with every commit, and would take every index of the flow with it.
alter table flow add column touched_at bigint not null default 0;

update flow
set touched_at = (extract(epoch from clock_timestamp()) * 1000000)::bigint;

create index flow_idle on flow (id) where not busy;
create index run_final on run (finished_at) where state in (4, 5);

-- When a flow was touched last, so that retention can tell which ones nothing names any more; by the latest wall time
-- seen, since clocks step back. A schema of before has not noted it: its flows count from now.
alter table flow add column touched_at integer not null default 0;

update flow
set touched_at = cast(unixepoch('subsec') * 1000000 as integer);

create index flow_idle on flow (touched_at) where busy = 0;
create index run_final on run (finished_at) where state in (4, 5);

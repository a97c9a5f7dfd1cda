-- Sums per operation. One row per operation, read whole.
select
  provider, operation, ready_urgent, ready_normal, ready_bulk, later, behind, calling, unknown, delivered, dead, cancelled
from tally
order by provider, operation

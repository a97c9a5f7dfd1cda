-- Number of the run that undoes run $1. Relies on run_undo.
select seq
from run
where undo_of = $1

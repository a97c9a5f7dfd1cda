-- Permits in the hands of programs outside, and runs that undo others.

-- Permits of the call that a program outside holds until lease_until; 0: the daemon makes the call itself.
alter table call add column outside bigint not null default 0;

-- Number of the run that this one undoes. One at most, whoever asks how often.
alter table run add column undo_of bigint;
create unique index run_undo on run (undo_of) where undo_of is not null;

-- Limits are rebuilt from the journal of calls alone (docs/decisions/0023-the-journal-suffices.md): what a limiter once
-- could save of itself goes.
drop table saved_limit;

alter table meta drop column limits_upto;

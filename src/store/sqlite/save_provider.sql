-- Puts a declaration in force. By primary key.
insert or replace into provider (name, source, revision, paused, applied_at, actor, memory)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7)

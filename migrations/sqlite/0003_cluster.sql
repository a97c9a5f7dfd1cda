-- What a store keeps for limiters that live on a server of their own.
alter table meta add column limiter_run text;

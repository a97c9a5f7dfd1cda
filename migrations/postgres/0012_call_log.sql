-- What was seen of a call on the wire, for the call log (store/row.rs reads it).

-- Microseconds; null: nobody saw its end.
alter table call add column latency bigint;
-- Headers of the answer that speak of limits: JSON [[name, value], ...]; null when there were none.
alter table call add column headers text;
-- Where the operation says so: JSON [request, answer], each [text, bytes on the wire, whether it is cut].
alter table call add column bodies text;

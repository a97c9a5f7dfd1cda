-- Numbers of measures: collection ($1), aggregate ($2), bucket ($3), group ($4), measure ($5), value ($6), id ($7).
insert into record_point (collection, aggregate, bucket, grp, measure, value, id)
select *
from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::text[])
on conflict do nothing

with components as (
    select * from {{ ref("stg_requirement_components") }}
)

select
    run_id,
    business_date,
    session,
    rulebook_id,
    account_id,
    currency,
    coalesce(sum(amount) filter (where margin_type = 'initial'), 0) as initial_margin,
    coalesce(sum(amount) filter (where margin_type = 'maintenance'), 0) as maintenance_margin
from components
group by run_id, business_date, session, rulebook_id, account_id, currency

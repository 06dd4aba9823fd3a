with components as (
    select * from {{ ref("stg_requirement_components") }}
)

select
    run_id,
    business_date,
    session,
    rulebook_id,
    account_id,
    netting_set,
    component,
    margin_type,
    amount,
    currency,
    scenario_id
from components

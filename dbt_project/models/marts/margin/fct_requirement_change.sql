with changes as (
    select * from {{ ref("stg_requirement_changes") }}
)

select
    run_id,
    business_date,
    session,
    account_id,
    rulebook_id,
    previous_initial_margin,
    market_effect,
    trading_effect,
    initial_margin,
    currency
from changes

with collateral_values as (
    select * from {{ ref("stg_collateral_values") }}
)

select
    run_id,
    business_date,
    session,
    account_id,
    asset,
    quantity,
    asset_price_usd,
    haircut,
    market_value,
    haircut_amount,
    fx_haircut_amount,
    concentration_amount,
    collateral_value,
    counting_rule
from collateral_values

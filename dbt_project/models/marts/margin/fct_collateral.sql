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
    collateral_value
from collateral_values

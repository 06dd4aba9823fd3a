with balances as (
    select * from {{ ref("stg_collateral_balances") }}
),

collateral_values as (
    select * from {{ ref("stg_collateral_values") }}
)

select
    balances.run_id,
    balances.business_date,
    balances.session,
    balances.account_id,
    balances.asset,
    balances.custody_location,
    balances.quantity,
    cast(balances.quantity * collateral_values.asset_price_usd as decimal(38, 8)) as market_value,
    cast(
        if(
            collateral_values.quantity = 0,
            0,
            cast(collateral_values.collateral_value as double) * balances.quantity / collateral_values.quantity
        ) as decimal(38, 8)
    ) as collateral_value_share
from balances
inner join collateral_values
    on balances.account_id = collateral_values.account_id and balances.asset = collateral_values.asset

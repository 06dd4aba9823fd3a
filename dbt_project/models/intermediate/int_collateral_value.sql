with balances as (
    select * from {{ ref("stg_collateral_balances") }}
),

index_prices as (
    select * from {{ ref("int_index_price") }}
),

terms as (
    select * from {{ ref("stg_collateral_terms") }}
),

valued as (
    select
        balances.*,
        {{ price_in_usd("balances.asset", "index_prices.index_price_usd") }} as asset_price_usd,
        -- What is owed is a debt and counts in full.
        if(balances.quantity < 0, 0, terms.haircut) as haircut
    from balances
    left join index_prices on balances.asset = index_prices.asset
    left join terms on balances.asset = terms.asset
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
    cast(quantity * asset_price_usd as decimal(38, 8)) as market_value,
    cast(quantity * asset_price_usd * (1 - haircut) as decimal(38, 8)) as collateral_value
from valued

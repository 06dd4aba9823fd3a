{#- The index that valuation and collateral used, where they published one; else the median over venues. Reference
    values are no venue: they stand in for the median of a tokenised asset that no venue quotes. -#}
with quotes as (
    select * from {{ ref("stg_index_quotes") }}
),

valuations as (
    select * from {{ ref("stg_valuations") }}
),

tokens as (
    select distinct underlying as asset
    from {{ ref("stg_instruments") }}
    where product_type = 'tokenised_asset'
),

-- Lowest price that the price policy of a staked token gives, however far its market falls.
floors as (
    select
        asset,
        max(price_floor_usd) as price_floor_usd
    from {{ ref("stg_collateral_terms") }}
    where price_floor_usd is not null
    group by asset
),

collateral_values as (
    select * from {{ ref("stg_collateral_values") }}
),

medians as (
    select
        run_id,
        business_date,
        session,
        asset,
        coalesce(median(index_price) filter (where venue <> 'REFERENCE'), median(index_price)) as median_price_usd,
        count(*) filter (where venue <> 'REFERENCE') as venue_count
    from quotes
    group by run_id, business_date, session, asset
),

used as (
    select
        underlying as asset,
        underlying_price as index_price_usd
    from valuations
    union all
    select
        asset,
        asset_price_usd as index_price_usd
    from collateral_values
),

published as (
    select
        asset,
        min(index_price_usd) as lowest_price_usd,
        max(index_price_usd) as highest_price_usd
    from used
    group by asset
)

select
    medians.run_id,
    medians.business_date,
    medians.session,
    medians.asset,
    medians.median_price_usd,
    medians.venue_count,
    coalesce(published.highest_price_usd, medians.median_price_usd) as index_price_usd,
    published.lowest_price_usd,
    published.highest_price_usd,
    published.highest_price_usd is not null as is_published,
    tokens.asset is not null or floors.asset is not null as is_policy_priced,
    floors.price_floor_usd
from medians
left join published on medians.asset = published.asset
left join tokens on medians.asset = tokens.asset
left join floors on medians.asset = floors.asset

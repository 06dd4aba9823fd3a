{#- The index that valuation and collateral used, where they published one; else the median over venues. -#}
with quotes as (
    select * from {{ ref("stg_index_quotes") }}
),

valuations as (
    select * from {{ ref("stg_valuations") }}
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
        median(index_price) as median_price_usd,
        count(*) as venue_count
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
    published.highest_price_usd is not null as is_published
from medians
left join published on medians.asset = published.asset

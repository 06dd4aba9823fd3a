with instruments as (
    select * from {{ ref("stg_instruments") }}
),

prices as (
    select * from {{ ref("stg_market_prices") }}
),

valuations as (
    select * from {{ ref("stg_valuations") }}
),

index_prices as (
    select * from {{ ref("int_index_price") }}
),

positions as (
    select * from {{ ref("stg_positions") }}
),

trades as (
    select * from {{ ref("stg_trades") }}
),

quarantine as (
    select * from {{ ref("stg_quarantine") }}
),

refused_price_texts as (
    select
        json_extract_string(raw_row, '$.instrument_id') as instrument_id,
        try_cast(json_extract_string(raw_row, '$.previous_mark_price') as double) as previous_mark_price,
        try_cast(json_extract_string(raw_row, '$.funding_rate') as double) as funding_rate
    from quarantine
    where feed = 'market_prices'
),

-- What a refused price row still says about the day before, as far as it keeps the ranges of the contract.
refused_prices as (
    select
        instrument_id,
        max(if(previous_mark_price > 0 and isfinite(previous_mark_price), previous_mark_price, null))
            as previous_mark_price,
        max(if(funding_rate between -0.5 and 0.5, funding_rate, null)) as funding_rate
    from refused_price_texts
    group by instrument_id
),

refused_positions as (
    select distinct
        json_extract_string(raw_row, '$.account_id') as account_id,
        json_extract_string(raw_row, '$.instrument_id') as instrument_id
    from quarantine
    where feed = 'positions'
),

-- Of a position that is not known at all, trades do not tell what was carried. One that the flat book determines is.
unreadable_positions as (
    select refused_positions.*
    from refused_positions
    left join positions
        on
            refused_positions.account_id = positions.account_id
            and refused_positions.instrument_id = positions.instrument_id
    where positions.account_id is null
),

settling_trades as (
    select trades.*
    from trades
    left join unreadable_positions
        on
            trades.account_id = unreadable_positions.account_id
            and trades.instrument_id = unreadable_positions.instrument_id
    where unreadable_positions.account_id is null
),

traded as (
    select
        account_id,
        instrument_id,
        sum(quantity) as quantity
    from settling_trades
    group by account_id, instrument_id
),

-- A position that was closed during the day has trades but no row among the positions.
held as (
    select
        coalesce(positions.account_id, traded.account_id) as account_id,
        coalesce(positions.instrument_id, traded.instrument_id) as instrument_id,
        coalesce(positions.quantity, 0) as quantity,
        coalesce(positions.quantity, 0) - coalesce(traded.quantity, 0) as previous_quantity
    from positions
    full outer join traded
        on positions.account_id = traded.account_id and positions.instrument_id = traded.instrument_id
),

-- A mark that was refused is replaced by the fallback that valuation used; a tokenised asset is settled at the price of
-- its policy, whatever mark was delivered. What settles its gains daily is everything but options paid for upfront.
terms as (
    select
        instruments.run_id,
        instruments.business_date,
        instruments.session,
        instruments.instrument_id,
        instruments.product_type,
        instruments.settlement_style,
        instruments.contract_multiplier,
        instruments.product_type = 'option'
        and coalesce(instruments.premium_style, 'upfront') = 'upfront' as is_paid_upfront,
        -- Gains of an inverse future are reciprocal; the mark of a coin option is an amount of coin.
        instruments.settlement_style = 'inverse' and instruments.product_type <> 'option' as is_reciprocal,
        if(
            instruments.product_type = 'tokenised_asset',
            valuations.mark_price,
            coalesce(prices.mark_price, valuations.mark_price)
        ) as mark_price,
        coalesce(prices.previous_mark_price, refused_prices.previous_mark_price) as previous_mark_price,
        coalesce(prices.funding_rate, refused_prices.funding_rate, 0) as funding_rate,
        {{ price_in_usd("instruments.settlement_currency", "index_prices.index_price_usd") }} as currency_usd,
        instruments.settlement_currency = 'USD' or index_prices.is_published as is_index_published
    from instruments
    left join prices on instruments.instrument_id = prices.instrument_id
    left join refused_prices on instruments.instrument_id = refused_prices.instrument_id
    left join valuations on instruments.instrument_id = valuations.instrument_id
    left join index_prices on instruments.settlement_currency = index_prices.asset
),

-- What is settled: the carried position from the previous mark, each trade from its own price.
settled as (
    select
        held.account_id,
        held.instrument_id,
        held.previous_quantity as quantity,
        terms.previous_mark_price as start_price,
        false as is_trade
    from held
    inner join terms on held.instrument_id = terms.instrument_id
    where held.previous_quantity <> 0

    union all

    select
        account_id,
        instrument_id,
        quantity,
        trade_price as start_price,
        true as is_trade
    from settling_trades
),

gains as (
    select
        settled.*,
        terms.is_paid_upfront,
        terms.contract_multiplier * terms.currency_usd as usd_per_price,
        if(
            terms.is_reciprocal,
            1 / settled.start_price - 1 / terms.mark_price,
            terms.mark_price - settled.start_price
        ) as price_gain
    from settled
    inner join terms on settled.instrument_id = terms.instrument_id
),

settlements as (
    select
        account_id,
        instrument_id,
        sum(if(is_paid_upfront, 0, cast(quantity * usd_per_price * price_gain as decimal(38, 8)))) as variation_margin,
        sum(
            if(is_paid_upfront and is_trade, cast(-quantity * usd_per_price * start_price as decimal(38, 8)), 0)
        ) as premium_amount
    from gains
    group by account_id, instrument_id
),

funded as (
    select
        terms.run_id,
        terms.business_date,
        terms.session,
        held.account_id,
        held.instrument_id,
        held.quantity,
        held.previous_quantity,
        terms.is_index_published,
        coalesce(settlements.variation_margin, 0) as variation_margin,
        coalesce(settlements.premium_amount, 0) as premium_amount,
        -- The notional of an inverse perpetual is its face in USD, of a linear one its value at the mark.
        cast(
            if(terms.product_type = 'perpetual', -held.previous_quantity * terms.funding_rate, 0)
            * terms.contract_multiplier
            * if(terms.settlement_style = 'inverse', 1, terms.mark_price * terms.currency_usd) as decimal(38, 8)
        ) as funding_amount
    from held
    inner join terms on held.instrument_id = terms.instrument_id
    left join settlements
        on held.account_id = settlements.account_id and held.instrument_id = settlements.instrument_id
)

select
    *,
    variation_margin + premium_amount + funding_amount as settlement_amount
from funded

with instruments as (
    select * from {{ ref("stg_instruments") }}
)

select
    run_id,
    business_date,
    session,
    instrument_id,
    product_type,
    underlying,
    settlement_style,
    quote_currency,
    settlement_currency,
    contract_multiplier,
    expiry_at,
    strike_price,
    option_type,
    exercise_style,
    payoff_type,
    premium_style,
    option_valued_on,
    settlement_method,
    averaging_window_seconds
from instruments

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
    coalesce(exercise_style, if(product_type = 'option', 'european', null)) as exercise_style,
    coalesce(payoff_type, if(product_type = 'option', 'vanilla', null)) as payoff_type,
    coalesce(premium_style, if(product_type = 'option', 'upfront', null)) as premium_style,
    coalesce(option_valued_on, if(product_type = 'option', 'forward', null)) as option_valued_on,
    coalesce(settlement_method, if(product_type in ('option', 'future'), 'cash', null)) as settlement_method,
    coalesce(averaging_window_seconds, 0) as averaging_window_seconds
from instruments

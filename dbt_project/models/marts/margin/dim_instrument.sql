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
    option_type
from instruments

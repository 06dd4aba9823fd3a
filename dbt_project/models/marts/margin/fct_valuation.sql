with valuations as (
    select * from {{ ref("stg_valuations") }}
),

instruments as (
    select * from {{ ref("stg_instruments") }}
)

select
    valuations.run_id,
    valuations.business_date,
    valuations.session,
    valuations.instrument_id,
    instruments.product_type,
    valuations.underlying,
    valuations.settlement_currency,
    valuations.mark_price,
    valuations.forward_price,
    valuations.mark_iv,
    valuations.underlying_price,
    valuations.contract_value_usd,
    valuations.delta,
    valuations.gamma,
    valuations.vega_usd,
    valuations.theta_usd,
    valuations.price_source,
    valuations.is_fallback_price
from valuations
left join instruments on valuations.instrument_id = instruments.instrument_id

with positions as (
    select * from {{ ref("stg_positions") }}
),

instruments as (
    select * from {{ ref("stg_instruments") }}
),

valuations as (
    select * from {{ ref("stg_valuations") }}
)

select
    positions.run_id,
    positions.business_date,
    positions.session,
    positions.account_id,
    positions.instrument_id,
    cast(
        -- A futures-style option settles its gains daily and holds no value.
        if(
            instruments.product_type = 'option' and coalesce(instruments.premium_style, 'upfront') = 'upfront',
            positions.quantity,
            0
        )
        * cast(valuations.contract_value_usd as decimal(38, 8)) as decimal(38, 8)
    ) as net_option_value
from positions
inner join instruments on positions.instrument_id = instruments.instrument_id
left join valuations on positions.instrument_id = valuations.instrument_id

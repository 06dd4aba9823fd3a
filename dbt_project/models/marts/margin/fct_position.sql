with position_values as (
    select * from {{ ref("stg_position_values") }}
),

instruments as (
    select * from {{ ref("stg_instruments") }}
),

accounts as (
    select * from {{ ref("stg_accounts") }}
)

select
    position_values.run_id,
    position_values.business_date,
    position_values.session,
    position_values.account_id,
    accounts.member_id,
    position_values.instrument_id,
    instruments.product_type,
    instruments.underlying,
    position_values.quantity,
    position_values.previous_quantity,
    position_values.notional_amount,
    position_values.delta_usd,
    position_values.net_option_value,
    position_values.variation_margin,
    position_values.premium_amount,
    position_values.funding_amount,
    position_values.settlement_amount,
    position_values.worst_scenario_pnl
from position_values
left join instruments on position_values.instrument_id = instruments.instrument_id
left join accounts on position_values.account_id = accounts.account_id

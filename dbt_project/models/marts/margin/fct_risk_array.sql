with risk_arrays as (
    select * from {{ ref("stg_risk_arrays") }}
),

valuations as (
    select * from {{ ref("stg_valuations") }}
),

scenarios as (
    select * from {{ ref("stg_scenarios") }}
)

select
    risk_arrays.run_id,
    risk_arrays.business_date,
    risk_arrays.session,
    risk_arrays.rulebook_id,
    risk_arrays.instrument_id,
    valuations.underlying,
    risk_arrays.scenario_id,
    scenarios.price_move,
    scenarios.volatility_move,
    scenarios.weight,
    risk_arrays.pnl_per_contract
from risk_arrays
left join valuations on risk_arrays.instrument_id = valuations.instrument_id
left join scenarios
    on
        risk_arrays.rulebook_id = scenarios.rulebook_id
        and valuations.underlying = scenarios.underlying
        and risk_arrays.scenario_id = scenarios.scenario_id

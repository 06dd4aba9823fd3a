with positions as (
    select * from {{ ref("stg_positions") }}
),

instruments as (
    select * from {{ ref("stg_instruments") }}
),

risk_arrays as (
    select * from {{ ref("stg_risk_arrays") }}
)

select
    positions.run_id,
    positions.business_date,
    positions.session,
    risk_arrays.rulebook_id,
    positions.account_id,
    instruments.underlying as netting_set,
    risk_arrays.scenario_id,
    cast(sum(positions.quantity * risk_arrays.pnl_per_contract) as decimal(38, 8)) as pnl_amount
from positions
inner join instruments on positions.instrument_id = instruments.instrument_id
inner join risk_arrays on positions.instrument_id = risk_arrays.instrument_id
where positions.quantity <> 0
group by all

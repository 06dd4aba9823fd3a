with account_scenario_pnl as (
    select * from {{ ref("stg_account_scenario_pnl") }}
),

scenarios as (
    select * from {{ ref("stg_scenarios") }}
)

select
    account_scenario_pnl.run_id,
    account_scenario_pnl.business_date,
    account_scenario_pnl.session,
    account_scenario_pnl.rulebook_id,
    account_scenario_pnl.account_id,
    account_scenario_pnl.netting_set,
    account_scenario_pnl.scenario_id,
    scenarios.price_move,
    scenarios.volatility_move,
    scenarios.weight,
    account_scenario_pnl.pnl_amount,
    account_scenario_pnl.is_binding
from account_scenario_pnl
left join scenarios
    on
        account_scenario_pnl.rulebook_id = scenarios.rulebook_id
        and account_scenario_pnl.netting_set = scenarios.underlying
        and account_scenario_pnl.scenario_id = scenarios.scenario_id

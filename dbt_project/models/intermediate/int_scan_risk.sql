with account_scenario_pnl as (
    select * from {{ ref("int_account_scenario_pnl") }}
)

select
    run_id,
    business_date,
    session,
    rulebook_id,
    account_id,
    netting_set,
    greatest(-min(pnl_amount), 0) as initial_amount
from account_scenario_pnl
group by run_id, business_date, session, rulebook_id, account_id, netting_set

with account_margin as (
    select * from {{ ref("stg_account_margin") }}
)

select
    run_id,
    business_date,
    session,
    account_id,
    member_id,
    rulebook_id,
    initial_margin,
    maintenance_margin,
    collateral_value,
    net_option_value,
    settlement_amount,
    equity,
    deficit,
    excess,
    pending_in,
    releasable_amount,
    call_trigger,
    currency,
    is_conservative
from account_margin

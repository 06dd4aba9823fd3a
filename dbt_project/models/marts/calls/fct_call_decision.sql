with call_decisions as (
    select * from {{ ref("stg_call_decisions") }}
)

select
    run_id,
    business_date,
    session,
    account_id,
    member_id,
    decision,
    decision_reason,
    deficit,
    pending_in,
    call_trigger,
    policy_version,
    currency
from call_decisions

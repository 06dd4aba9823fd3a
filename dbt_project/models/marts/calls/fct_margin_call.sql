with margin_calls as (
    select * from {{ ref("stg_margin_calls") }}
)

select
    run_id,
    business_date,
    session,
    call_id,
    account_id,
    member_id,
    call_amount,
    variation_call_amount,
    initial_call_amount,
    deficit,
    currency,
    due_at,
    call_status
from margin_calls

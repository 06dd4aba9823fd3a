with called as (
    select
        *,
        {{ rounded_up("greatest(-settlement_amount, 0)", call_term("payment_unit")) }} as payable_loss
    from {{ ref("int_call_decision") }}
    where decision_reason = 'called'
)

select
    run_id,
    business_date,
    session,
    account_id,
    deficit,
    call_amount,
    least(call_amount, payable_loss) as variation_call_amount,
    call_amount - least(call_amount, payable_loss) as initial_call_amount
from called

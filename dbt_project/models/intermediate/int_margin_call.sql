with account_margin as (
    select * from {{ ref("stg_account_margin") }}
),

exposures as (
    select
        *,
        greatest(initial_margin - {{ call_term("threshold") }}, 0) - equity as to_collect,
        greatest(-settlement_amount, 0) as day_loss
    from account_margin
),

called as (
    select
        *,
        {{ rounded_up("to_collect", call_term("rounding_unit")) }} as call_amount,
        {{ rounded_up("day_loss", call_term("payment_unit")) }} as payable_loss
    from exposures
    where to_collect > 0 and to_collect >= {{ call_term("minimum_transfer_amount") }}
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

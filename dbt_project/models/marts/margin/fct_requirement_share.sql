with shares as (
    select * from {{ ref("stg_requirement_shares") }}
)

select
    run_id,
    business_date,
    session,
    rulebook_id,
    account_id,
    netting_set,
    instrument_id,
    component,
    margin_type,
    amount,
    currency
from shares

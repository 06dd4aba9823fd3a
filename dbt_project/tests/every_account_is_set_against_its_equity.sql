{{ config(tags=["figures"]) }}

with accounts as (
    select * from {{ ref("stg_accounts") }}
),

account_margin as (
    select * from {{ ref("fct_account_margin") }}
    where run_id = {{ current_run() }}
)

select accounts.account_id
from accounts
left join account_margin on accounts.account_id = account_margin.account_id
where account_margin.account_id is null

{{ config(tags=["figures"]) }}

with accounts as (
    select * from {{ ref("stg_accounts") }}
),

requirements as (
    select * from {{ ref("fct_requirement") }}
    where run_id = {{ current_run() }}
),

rulebooks as (
    select distinct rulebook_id from requirements
    union distinct
    select distinct rulebook_id from accounts
)

select
    accounts.account_id,
    rulebooks.rulebook_id
from accounts
cross join rulebooks
left join requirements
    on accounts.account_id = requirements.account_id and rulebooks.rulebook_id = requirements.rulebook_id
where requirements.account_id is null

with accounts as (
    select * from {{ ref("stg_accounts") }}
),

members as (
    select * from {{ ref("stg_members") }}
)

select
    accounts.run_id,
    accounts.business_date,
    accounts.session,
    accounts.account_id,
    accounts.account_name,
    accounts.account_type,
    accounts.member_id,
    members.member_name,
    accounts.base_currency,
    accounts.rulebook_id
from accounts
left join members on accounts.member_id = members.member_id

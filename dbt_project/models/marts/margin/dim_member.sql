with members as (
    select * from {{ ref("stg_members") }}
),

accounts as (
    select * from {{ ref("stg_accounts") }}
),

account_counts as (
    select
        member_id,
        count(*) as account_count
    from accounts
    group by member_id
)

select
    members.run_id,
    members.business_date,
    members.session,
    members.member_id,
    members.member_name,
    members.country,
    members.contact_email,
    coalesce(account_counts.account_count, 0) as account_count
from members
left join account_counts on members.member_id = account_counts.member_id

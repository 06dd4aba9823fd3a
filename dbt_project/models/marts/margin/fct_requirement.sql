with requirements as (
    select * from {{ ref("stg_requirements") }}
),

accounts as (
    select * from {{ ref("stg_accounts") }}
)

select
    requirements.run_id,
    requirements.business_date,
    requirements.session,
    requirements.rulebook_id,
    requirements.account_id,
    accounts.member_id,
    requirements.initial_margin,
    requirements.maintenance_margin,
    requirements.stand_alone_margin,
    requirements.currency,
    requirements.is_conservative,
    requirements.is_attributed,
    coalesce(accounts.rulebook_id = requirements.rulebook_id, false) as is_called_on
from requirements
left join accounts on requirements.account_id = accounts.account_id

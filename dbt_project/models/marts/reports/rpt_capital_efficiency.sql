with requirements as (
    select * from {{ ref("fct_requirement") }}
    where run_id = {{ current_run() }}
),

isolated as (
    select
        account_id,
        initial_margin
    from requirements
    where rulebook_id = 'isolated'
)

select
    requirements.run_id,
    requirements.business_date,
    requirements.session,
    requirements.account_id,
    requirements.member_id,
    requirements.rulebook_id,
    requirements.is_called_on,
    requirements.initial_margin,
    isolated.initial_margin as isolated_initial_margin,
    isolated.initial_margin - requirements.initial_margin as saving_amount,
    cast(requirements.initial_margin as double) / nullif(cast(isolated.initial_margin as double), 0)
        as ratio_to_isolated,
    requirements.stand_alone_margin,
    requirements.stand_alone_margin - requirements.initial_margin as hedge_amount,
    requirements.currency
from requirements
left join isolated on requirements.account_id = isolated.account_id

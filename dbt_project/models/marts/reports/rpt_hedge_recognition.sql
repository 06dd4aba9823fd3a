with requirements as (
    select * from {{ ref("fct_requirement") }}
    where run_id = {{ current_run() }}
),

parts as (
    select
        rulebook_id,
        account_id,
        coalesce(sum(amount) filter (where amount < 0), 0) as credit_amount,
        coalesce(sum(amount) filter (where component = 'outside_methodology'), 0) as outside_amount
    from {{ ref("fct_requirement_component") }}
    where run_id = {{ current_run() }} and margin_type = 'initial'
    group by rulebook_id, account_id
),

positions as (
    select
        rulebook_id,
        account_id,
        instrument_id,
        sum(amount) as share_amount
    from {{ ref("fct_requirement_share") }}
    where run_id = {{ current_run() }} and margin_type = 'initial'
    group by rulebook_id, account_id, instrument_id
),

hedging as (
    select
        rulebook_id,
        account_id,
        count(*) as hedging_position_count
    from positions
    where share_amount < 0
    group by rulebook_id, account_id
)

select
    requirements.run_id,
    requirements.business_date,
    requirements.session,
    requirements.account_id,
    requirements.member_id,
    requirements.rulebook_id,
    requirements.is_called_on,
    requirements.is_attributed,
    requirements.stand_alone_margin,
    requirements.initial_margin,
    requirements.stand_alone_margin - requirements.initial_margin as hedge_amount,
    cast(requirements.stand_alone_margin - requirements.initial_margin as double)
    / nullif(cast(requirements.stand_alone_margin as double), 0) as hedge_share,
    cast(coalesce(parts.credit_amount, 0) as decimal(38, 8)) as credit_amount,
    cast(coalesce(parts.outside_amount, 0) as decimal(38, 8)) as outside_amount,
    case when requirements.is_attributed then coalesce(hedging.hedging_position_count, 0) end
        as hedging_position_count,
    requirements.currency
from requirements
left join parts
    on requirements.rulebook_id = parts.rulebook_id and requirements.account_id = parts.account_id
left join hedging
    on requirements.rulebook_id = hedging.rulebook_id and requirements.account_id = hedging.account_id

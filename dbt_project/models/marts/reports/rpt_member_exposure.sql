with members as (
    select * from {{ ref("stg_members") }}
),

account_margin as (
    select * from {{ ref("stg_account_margin") }}
),

position_values as (
    select
        account_id,
        sum(notional_amount) as notional_amount,
        sum(delta_usd) as delta_usd
    from {{ ref("stg_position_values") }}
    group by account_id
),

margin_calls as (
    select
        account_id,
        sum(call_amount) as call_amount,
        count(*) as call_count
    from {{ ref("stg_margin_calls") }}
    group by account_id
),

exposures as (
    select
        account_margin.member_id,
        count(*) as account_count,
        sum(coalesce(position_values.notional_amount, 0)) as notional_amount,
        sum(coalesce(position_values.delta_usd, 0)) as delta_usd,
        sum(account_margin.initial_margin) as initial_margin,
        sum(account_margin.collateral_value) as collateral_value,
        sum(account_margin.equity) as equity,
        sum(account_margin.deficit) as deficit,
        sum(coalesce(margin_calls.call_amount, 0)) as call_amount,
        cast(sum(coalesce(margin_calls.call_count, 0)) as bigint) as call_count
    from account_margin
    left join position_values on account_margin.account_id = position_values.account_id
    left join margin_calls on account_margin.account_id = margin_calls.account_id
    group by account_margin.member_id
)

select
    members.run_id,
    members.business_date,
    members.session,
    members.member_id,
    members.member_name,
    coalesce(exposures.account_count, 0) as account_count,
    coalesce(exposures.notional_amount, 0) as notional_amount,
    coalesce(exposures.delta_usd, 0) as delta_usd,
    coalesce(exposures.initial_margin, 0) as initial_margin,
    coalesce(exposures.collateral_value, 0) as collateral_value,
    coalesce(exposures.equity, 0) as equity,
    coalesce(exposures.deficit, 0) as deficit,
    coalesce(exposures.call_amount, 0) as call_amount,
    coalesce(exposures.call_count, 0) as call_count
from members
left join exposures on members.member_id = exposures.member_id

with account_margin as (
    select * from {{ ref("stg_account_margin") }}
),

-- Premium is paid for value that equity holds: it is no loss.
day_results as (
    select
        account_id,
        sum(settlement_amount - premium_amount) as mark_to_market_gain
    from {{ ref("stg_position_values") }}
    group by account_id
),

measured as (
    select
        account_margin.*,
        greatest(-coalesce(day_results.mark_to_market_gain, 0), 0) as mark_to_market_loss,
        coalesce(changes.previous_initial_margin, 0) as previous_initial_margin,
        coalesce(changes.market_effect, 0) as market_effect,
        coalesce(changes.trading_effect, 0) as trading_effect,
        greatest(account_margin.initial_margin - account_margin.equity, 0) as missing_margin,
        greatest(account_margin.initial_margin - {{ call_term("threshold") }}, 0)
        - account_margin.equity as to_collect,
        greatest(
            if(
                {{ call_term("trigger_level") }} = 'maintenance',
                account_margin.maintenance_margin,
                account_margin.initial_margin
            ) - {{ call_term("threshold") }},
            0
        ) - account_margin.equity as below_level
    from account_margin
    left join day_results on account_margin.account_id = day_results.account_id
    left join {{ ref("stg_requirement_changes") }} as changes on account_margin.account_id = changes.account_id
),

-- A criterion that is switched off is empty, and so never true.
triggered as (
    select
        *,
        case
            when session = 'EOD' or {{ call_term("intraday") }} = 'as_end_of_day' then 'end_of_day'
            when
                initial_margin > equity * {{ call_term("collateral_multiple") }}
                and initial_margin - equity >= {{ call_term("immaterial_below") }}
                then 'requirement_above_collateral'
            when
                mark_to_market_loss > {{ call_term("loss_above") }}
                and mark_to_market_loss >= initial_margin * {{ call_term("loss_share") }}
                then 'mark_to_market_loss'
            when
                market_effect > 0 and market_effect > previous_initial_margin * {{ call_term("market_move_share") }}
                then 'market_move'
            when
                trading_effect > 0
                and trading_effect > previous_initial_margin * {{ call_term("position_growth_share") }}
                then 'position_growth'
        end as fired_trigger
    from measured
),

rounded as (
    select
        *,
        greatest(to_collect - pending_in, 0) as still_to_collect,
        {{ rounded_call("greatest(to_collect - pending_in, 0)") }} as rounded_amount
    from triggered
),

decided as (
    select
        *,
        case
            when missing_margin = 0 then 'no_deficit'
            when to_collect <= 0 then 'within_threshold'
            when below_level <= 0 then 'above_maintenance'
            when fired_trigger is null and initial_margin > equity * {{ call_term("collateral_multiple") }}
                then 'immaterial'
            when fired_trigger is null then 'no_intraday_trigger'
            when still_to_collect = 0 or below_level <= pending_in then 'covered_by_pending'
            when still_to_collect < {{ call_term("minimum_transfer_amount") }} or rounded_amount = 0
                then 'below_minimum_transfer'
            else 'called'
        end as decision_reason
    from rounded
)

select
    run_id,
    business_date,
    session,
    account_id,
    decision_reason,
    fired_trigger as call_trigger,
    missing_margin as deficit,
    settlement_amount,
    if(decision_reason = 'called', rounded_amount, 0) as call_amount,
    if(
        equity - initial_margin >= {{ call_term("minimum_release_amount") }},
        {{ rounded_down("greatest(equity - initial_margin, 0)", release_unit()) }},
        0
    ) as releasable_amount
from decided

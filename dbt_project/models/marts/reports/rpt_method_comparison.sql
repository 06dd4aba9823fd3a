with efficiency as (
    select * from {{ ref("rpt_capital_efficiency") }}
    where run_id = {{ current_run() }}
),

totals as (
    select
        run_id,
        business_date,
        session,
        rulebook_id,
        currency,
        count(*) as account_count,
        count(*) filter (where is_called_on) as called_account_count,
        sum(initial_margin) as initial_margin,
        sum(isolated_initial_margin) as isolated_initial_margin,
        sum(stand_alone_margin) as stand_alone_margin,
        sum(hedge_amount) as hedge_amount
    from efficiency
    group by run_id, business_date, session, rulebook_id, currency
)

select
    *,
    isolated_initial_margin - initial_margin as saving_amount,
    cast(initial_margin as double) / nullif(cast(isolated_initial_margin as double), 0) as ratio_to_isolated
from totals

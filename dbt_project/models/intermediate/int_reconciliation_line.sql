{#- Every total that SQL computes from the delivered feeds or from the parts, beside the array engine's own.
    A side that is missing stays empty and breaks the check. Sums of exact parts agree to the last digit; products of
    prices are rounded by each road on its own and agree to a hundredth of a cent; an index agrees within the deviation
    that the market policy lets a venue have. -#}
{%- set exact = "0" -%}
{%- set rounded = "cast(0.0001 + 1e-12 * abs(by_array.{}) as decimal(38, 8))" -%}
{#- A price policy may stand above the market by its tolerance, 5 % at the most, beside that deviation. -#}
{%- set of_policy = "cast(0.0001 + 0.07 * abs(by_array.{}) as decimal(38, 8))" -%}
{%- set of_index = "cast(0.0001 + 0.02 * abs(by_array.{}) as decimal(38, 8))" -%}

with runs as (
    select distinct
        run_id,
        business_date,
        session
    from {{ ref("stg_accounts") }}
),

own_requirements as (
    select
        account_margin.*,
        requirements.initial_margin as computed_margin,
        requirements.maintenance_margin as computed_maintenance
    from {{ ref("stg_account_margin") }} as account_margin
    left join {{ ref("stg_requirements") }} as requirements
        on
            account_margin.account_id = requirements.account_id
            and account_margin.rulebook_id = requirements.rulebook_id
),

collateral_totals as (
    select
        account_id,
        sum(collateral_value) as collateral_value
    from {{ ref("stg_collateral_values") }}
    group by account_id
),

position_totals as (
    select
        account_id,
        sum(net_option_value) as net_option_value,
        sum(settlement_amount) as settlement_amount
    from {{ ref("stg_position_values") }}
    group by account_id
),

summed_requirements as (
    select
        rulebook_id,
        account_id,
        unnest(['initial', 'maintenance']) as margin_type,
        unnest([initial_margin, maintenance_margin]) as amount
    from {{ ref("int_requirement_total") }}
),

stated_requirements as (
    select
        rulebook_id,
        account_id,
        unnest(['initial', 'maintenance']) as margin_type,
        unnest([initial_margin, maintenance_margin]) as amount
    from {{ ref("stg_requirements") }}
),

stated_scans as (
    select * from {{ ref("stg_requirement_components") }}
    where
        component = 'scan_risk' and margin_type = 'initial'
        -- A methodology that revalues by itself publishes no risk arrays to recompute its scan from.
        and rulebook_id in (select risk_arrays.rulebook_id from {{ ref("stg_risk_arrays") }} as risk_arrays)
),

called_by_sql as (
    select
        account_id,
        unnest(['call', 'variation call', 'initial call', 'deficit']) as item,
        unnest([call_amount, variation_call_amount, initial_call_amount, deficit]) as amount
    from {{ ref("int_margin_call") }}
),

-- An account is called once: two calls of it add up to too much.
calls_of_account as (
    select
        account_id,
        sum(call_amount) as call_amount,
        sum(variation_call_amount) as variation_call_amount,
        sum(initial_call_amount) as initial_call_amount,
        sum(deficit) as deficit
    from {{ ref("stg_margin_calls") }}
    group by account_id
),

called_by_array as (
    select
        account_id,
        unnest(['call', 'variation call', 'initial call', 'deficit']) as item,
        unnest([call_amount, variation_call_amount, initial_call_amount, deficit]) as amount
    from calls_of_account
),

-- The levels that valuations and collateral state for one asset are one level.
published_index as (
    select
        'published_index' as check_name,
        '' as rulebook_id,
        '' as account_id,
        by_array.asset as item,
        cast(by_array.lowest_price_usd as decimal(38, 8)) as sql_amount,
        cast(by_array.highest_price_usd as decimal(38, 8)) as array_amount,
        {{ exact }} as tolerance
    from {{ ref("int_index_price") }} as by_array
    where by_array.is_published
),

-- A price policy takes the lower of what stands behind a token and its market: only the upper side is held.
index_price as (
    select
        'index_price' as check_name,
        '' as rulebook_id,
        '' as account_id,
        by_array.asset as item,
        cast(
            if(
                by_array.is_policy_priced,
                greatest(
                    least(by_array.median_price_usd, by_array.index_price_usd),
                    coalesce(by_array.price_floor_usd, 0)
                ),
                by_array.median_price_usd
            ) as decimal(38, 8)
        ) as sql_amount,
        cast(by_array.index_price_usd as decimal(38, 8)) as array_amount,
        if(
            by_array.is_policy_priced,
            {{ of_policy.format("index_price_usd") }},
            {{ of_index.format("index_price_usd") }}
        ) as tolerance
    from {{ ref("int_index_price") }} as by_array
    where by_array.is_published
),

account_scenario_pnl as (
    select
        'account_scenario_pnl' as check_name,
        coalesce(by_sql.rulebook_id, by_array.rulebook_id) as rulebook_id,
        coalesce(by_sql.account_id, by_array.account_id) as account_id,
        coalesce(by_sql.netting_set, by_array.netting_set)
        || ' ' || coalesce(by_sql.scenario_id, by_array.scenario_id) as item,
        by_sql.pnl_amount as sql_amount,
        by_array.pnl_amount as array_amount,
        {{ exact }} as tolerance
    from {{ ref("int_account_scenario_pnl") }} as by_sql
    full outer join {{ ref("stg_account_scenario_pnl") }} as by_array
        on
            by_sql.rulebook_id = by_array.rulebook_id
            and by_sql.account_id = by_array.account_id
            and by_sql.netting_set = by_array.netting_set
            and by_sql.scenario_id = by_array.scenario_id
),

scan_risk as (
    select
        'scan_risk' as check_name,
        coalesce(by_sql.rulebook_id, by_array.rulebook_id) as rulebook_id,
        coalesce(by_sql.account_id, by_array.account_id) as account_id,
        coalesce(by_sql.netting_set, by_array.netting_set) as item,
        by_sql.initial_amount as sql_amount,
        by_array.amount as array_amount,
        {{ exact }} as tolerance
    from {{ ref("int_scan_risk") }} as by_sql
    full outer join stated_scans as by_array
        on
            by_sql.rulebook_id = by_array.rulebook_id
            and by_sql.account_id = by_array.account_id
            and by_sql.netting_set = by_array.netting_set
),

requirement as (
    select
        'requirement' as check_name,
        coalesce(by_sql.rulebook_id, by_array.rulebook_id) as rulebook_id,
        coalesce(by_sql.account_id, by_array.account_id) as account_id,
        coalesce(by_sql.margin_type, by_array.margin_type) as item,
        -- An account without positions has no parts: they add up to nothing.
        coalesce(by_sql.amount, 0) as sql_amount,
        by_array.amount as array_amount,
        {{ exact }} as tolerance
    from summed_requirements as by_sql
    full outer join stated_requirements as by_array
        on
            by_sql.rulebook_id = by_array.rulebook_id
            and by_sql.account_id = by_array.account_id
            and by_sql.margin_type = by_array.margin_type
),

summed_shares as (
    select
        rulebook_id,
        account_id,
        netting_set,
        component,
        margin_type,
        sum(amount) as amount
    from {{ ref("stg_requirement_shares") }}
    group by all
),

attributed_components as (
    select components.*
    from {{ ref("stg_requirement_components") }} as components
    inner join {{ ref("stg_requirements") }} as requirements
        on
            components.rulebook_id = requirements.rulebook_id
            and components.account_id = requirements.account_id
    where requirements.is_attributed
),

-- Positions share every part of the requirement among them, and nothing that is no part of it.
requirement_shares as (
    select
        'requirement_shares' as check_name,
        coalesce(by_sql.rulebook_id, by_array.rulebook_id) as rulebook_id,
        coalesce(by_sql.account_id, by_array.account_id) as account_id,
        concat_ws(
            ' ',
            coalesce(by_sql.netting_set, by_array.netting_set),
            coalesce(by_sql.component, by_array.component),
            coalesce(by_sql.margin_type, by_array.margin_type)
        ) as item,
        -- What is nothing has no shares, and a part that is nothing need not be stated.
        coalesce(by_sql.amount, 0) as sql_amount,
        coalesce(by_array.amount, 0) as array_amount,
        {{ exact }} as tolerance
    from summed_shares as by_sql
    full outer join attributed_components as by_array
        on
            by_sql.rulebook_id = by_array.rulebook_id
            and by_sql.account_id = by_array.account_id
            and by_sql.netting_set = by_array.netting_set
            and by_sql.component = by_array.component
            and by_sql.margin_type = by_array.margin_type
),

scan_shares_by_sql as (
    select
        scans.rulebook_id,
        scans.account_id,
        positions.instrument_id,
        cast(-positions.quantity * risk_arrays.pnl_per_contract as decimal(38, 8)) as amount
    from stated_scans as scans
    inner join {{ ref("stg_positions") }} as positions on scans.account_id = positions.account_id
    inner join {{ ref("stg_instruments") }} as instruments
        on positions.instrument_id = instruments.instrument_id and scans.netting_set = instruments.underlying
    inner join {{ ref("stg_risk_arrays") }} as risk_arrays
        on
            scans.rulebook_id = risk_arrays.rulebook_id
            and positions.instrument_id = risk_arrays.instrument_id
            and scans.scenario_id = risk_arrays.scenario_id
    where scans.amount > 0
),

scan_shares_by_array as (
    select * from {{ ref("stg_requirement_shares") }}
    where
        component = 'scan_risk' and margin_type = 'initial'
        and rulebook_id in (select risk_arrays.rulebook_id from {{ ref("stg_risk_arrays") }} as risk_arrays)
),

-- A position's share of a scan is its loss in the scenario that binds, but for the unit that makes shares add up.
scan_share as (
    select
        'scan_share' as check_name,
        coalesce(by_sql.rulebook_id, by_array.rulebook_id) as rulebook_id,
        coalesce(by_sql.account_id, by_array.account_id) as account_id,
        coalesce(by_sql.instrument_id, by_array.instrument_id) as item,
        coalesce(by_sql.amount, 0) as sql_amount,
        coalesce(by_array.amount, 0) as array_amount,
        0.00000001 as tolerance
    from scan_shares_by_sql as by_sql
    full outer join scan_shares_by_array as by_array
        on
            by_sql.rulebook_id = by_array.rulebook_id
            and by_sql.account_id = by_array.account_id
            and by_sql.instrument_id = by_array.instrument_id
),

settlement as (
    select
        'settlement' as check_name,
        '' as rulebook_id,
        coalesce(by_sql.account_id, by_array.account_id) as account_id,
        coalesce(by_sql.instrument_id, by_array.instrument_id) as item,
        by_sql.settlement_amount as sql_amount,
        by_array.settlement_amount as array_amount,
        if(
            by_sql.is_index_published,
            {{ rounded.format("settlement_amount") }},
            {{ of_index.format("settlement_amount") }}
        ) as tolerance
    from {{ ref("int_variation_margin") }} as by_sql
    full outer join {{ ref("stg_position_values") }} as by_array
        on by_sql.account_id = by_array.account_id and by_sql.instrument_id = by_array.instrument_id
),

net_option_value as (
    select
        'net_option_value' as check_name,
        '' as rulebook_id,
        by_sql.account_id,
        by_sql.instrument_id as item,
        by_sql.net_option_value as sql_amount,
        by_array.net_option_value as array_amount,
        {{ rounded.format("net_option_value") }} as tolerance
    from {{ ref("int_net_option_value") }} as by_sql
    left join {{ ref("stg_position_values") }} as by_array
        on by_sql.account_id = by_array.account_id and by_sql.instrument_id = by_array.instrument_id
),

collateral_value as (
    select
        'collateral_value' as check_name,
        '' as rulebook_id,
        coalesce(by_sql.account_id, by_array.account_id) as account_id,
        coalesce(by_sql.asset, by_array.asset) as item,
        by_sql.collateral_value as sql_amount,
        by_array.collateral_value as array_amount,
        {{ rounded.format("collateral_value") }} as tolerance
    from {{ ref("int_collateral_value") }} as by_sql
    full outer join {{ ref("stg_collateral_values") }} as by_array
        on by_sql.account_id = by_array.account_id and by_sql.asset = by_array.asset
),

equity as (
    select
        'equity' as check_name,
        by_array.rulebook_id,
        by_array.account_id,
        'equity' as item,
        coalesce(collateral_totals.collateral_value, 0)
        + coalesce(position_totals.net_option_value, 0)
        + coalesce(position_totals.settlement_amount, 0) as sql_amount,
        by_array.equity as array_amount,
        {{ exact }} as tolerance
    from own_requirements as by_array
    left join collateral_totals on by_array.account_id = collateral_totals.account_id
    left join position_totals on by_array.account_id = position_totals.account_id
),

deficit as (
    select
        'deficit' as check_name,
        by_array.rulebook_id,
        by_array.account_id,
        'deficit' as item,
        greatest(by_array.computed_margin - by_array.equity, 0) as sql_amount,
        by_array.deficit as array_amount,
        {{ exact }} as tolerance
    from own_requirements as by_array
),

excess as (
    select
        'excess' as check_name,
        by_array.rulebook_id,
        by_array.account_id,
        'excess' as item,
        greatest(by_array.equity - by_array.computed_margin, 0) as sql_amount,
        by_array.excess as array_amount,
        {{ exact }} as tolerance
    from own_requirements as by_array
),

-- What an account is set against is its requirement under its own rulebook.
own_requirement as (
    select
        'own_requirement' as check_name,
        by_array.rulebook_id,
        by_array.account_id,
        unnest(['initial', 'maintenance']) as item,
        unnest([by_array.computed_margin, by_array.computed_maintenance]) as sql_amount,
        unnest([by_array.initial_margin, by_array.maintenance_margin]) as array_amount,
        {{ exact }} as tolerance
    from own_requirements as by_array
),

margin_call as (
    select
        'margin_call' as check_name,
        '' as rulebook_id,
        coalesce(by_sql.account_id, by_array.account_id) as account_id,
        coalesce(by_sql.item, by_array.item) as item,
        by_sql.amount as sql_amount,
        by_array.amount as array_amount,
        {{ exact }} as tolerance
    from called_by_sql as by_sql
    full outer join called_by_array as by_array
        on by_sql.account_id = by_array.account_id and by_sql.item = by_array.item
),

-- A decision is a word: the deficit that it is about stands for it, under the words that both roads must state.
decided_by_sql as (
    select
        account_id,
        concat_ws(' ', decision_reason, coalesce(call_trigger, 'untriggered')) as item,
        deficit as amount
    from {{ ref("int_call_decision") }}
    where deficit > 0 or session <> 'EOD'
),

decided_by_array as (
    select
        account_id,
        concat_ws(' ', decision_reason, coalesce(call_trigger, 'untriggered')) as item,
        deficit as amount
    from {{ ref("stg_call_decisions") }}
),

call_decision as (
    select
        'call_decision' as check_name,
        '' as rulebook_id,
        coalesce(by_sql.account_id, by_array.account_id) as account_id,
        coalesce(by_sql.item, by_array.item) as item,
        by_sql.amount as sql_amount,
        by_array.amount as array_amount,
        {{ exact }} as tolerance
    from decided_by_sql as by_sql
    full outer join decided_by_array as by_array
        on by_sql.account_id = by_array.account_id and by_sql.item = by_array.item
),

release as (
    select
        'release' as check_name,
        '' as rulebook_id,
        by_array.account_id,
        'releasable amount' as item,
        by_sql.releasable_amount as sql_amount,
        by_array.releasable_amount as array_amount,
        {{ exact }} as tolerance
    from {{ ref("stg_account_margin") }} as by_array
    left join {{ ref("int_call_decision") }} as by_sql on by_array.account_id = by_sql.account_id
),

compared as (
    select * from published_index
    union all
    select * from index_price
    union all
    select * from scan_risk
    union all
    select * from account_scenario_pnl
    union all
    select * from requirement
    union all
    select * from requirement_shares
    union all
    select * from scan_share
    union all
    select * from settlement
    union all
    select * from net_option_value
    union all
    select * from collateral_value
    union all
    select * from equity
    union all
    select * from deficit
    union all
    select * from excess
    union all
    select * from own_requirement
    union all
    select * from margin_call
    union all
    select * from call_decision
    union all
    select * from release
)

select
    runs.run_id,
    runs.business_date,
    runs.session,
    compared.check_name,
    compared.rulebook_id,
    compared.account_id,
    compared.item,
    compared.sql_amount,
    compared.array_amount,
    abs(compared.sql_amount - compared.array_amount) as difference,
    cast(compared.tolerance as decimal(38, 8)) as tolerance
from compared
cross join runs

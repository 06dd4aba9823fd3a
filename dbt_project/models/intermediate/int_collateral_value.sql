{#- The limits of issuer and asset class are shares of what counts in the end (fixed_point): they are applied to the
    total, the total is taken again, and so on until it moves by less than a tenth of a millionth of a dollar. Under
    single_pass they are applied once. Debts are no collateral: they are neither cut nor part of the total. -#}
{%- set unmoved = "0.0000001" -%}
{%- set most_steps = "5000" -%}

with recursive balances as (
    select
        run_id,
        business_date,
        session,
        account_id,
        asset,
        cast(sum(quantity) as decimal(38, 8)) as quantity
    from {{ ref("stg_collateral_balances") }}
    group by run_id, business_date, session, account_id, asset
),

terms as (
    select * from {{ ref("stg_collateral_terms") }}
),

index_prices as (
    select * from {{ ref("int_index_price") }}
),

own_groups as (
    select
        stg_accounts.account_id,
        stg_members.issuer_group
    from {{ ref("stg_accounts") }} as stg_accounts
    inner join {{ ref("stg_members") }} as stg_members on stg_accounts.member_id = stg_members.member_id
    where stg_members.issuer_group is not null
),

priced as (
    select
        balances.*,
        {{ price_in_usd("balances.asset", "index_prices.index_price_usd") }} as asset_price_usd,
        cast(
            balances.quantity * {{ price_in_usd("balances.asset", "index_prices.index_price_usd") }} as decimal(38, 8)
        ) as market_value
    from balances
    left join index_prices on balances.asset = index_prices.asset
),

-- Each tier's haircut holds for the part of the balance within it.
sliced as (
    select
        priced.account_id,
        priced.asset,
        terms.fx_haircut,
        terms.issuer,
        terms.asset_class,
        terms.issuer_group,
        terms.issuer_share_limit,
        terms.asset_class_share_limit,
        terms.limit_reading,
        (1 - terms.haircut)
        * if(terms.tier_unit = 'quantity', priced.asset_price_usd, 1)
        * greatest(
            least(
                if(terms.tier_unit = 'quantity', priced.quantity, priced.market_value),
                coalesce(terms.tier_upto, if(terms.tier_unit = 'quantity', priced.quantity, priced.market_value))
            ) - terms.tier_from,
            0
        ) as kept_value
    from priced
    inner join terms on priced.asset = terms.asset
),

after_haircut as (
    select
        account_id,
        asset,
        any_value(fx_haircut) as fx_haircut,
        any_value(issuer) as issuer,
        any_value(asset_class) as asset_class,
        any_value(issuer_group) as issuer_group,
        any_value(issuer_share_limit) as issuer_share_limit,
        any_value(asset_class_share_limit) as asset_class_share_limit,
        any_value(limit_reading) as limit_reading,
        sum(kept_value) as kept_value
    from sliced
    group by account_id, asset
),

-- What is owed counts in full, and the conversion of it costs.
after_conversion as (
    select
        after_haircut.*,
        priced.quantity < 0 as is_debt,
        case
            when priced.quantity < 0 then priced.market_value * (1 + after_haircut.fx_haircut)
            when own_groups.issuer_group = after_haircut.issuer_group then 0
            else after_haircut.kept_value * (1 - after_haircut.fx_haircut)
        end as value_before_limits
    from after_haircut
    inner join priced on after_haircut.account_id = priced.account_id and after_haircut.asset = priced.asset
    left join own_groups on after_haircut.account_id = own_groups.account_id
),

limited_accounts as (
    select distinct account_id
    from after_conversion
    where not is_debt and (issuer_share_limit is not null or asset_class_share_limit is not null)
),

held as (
    select
        after_conversion.account_id,
        after_conversion.asset,
        after_conversion.asset_class,
        after_conversion.issuer_share_limit,
        after_conversion.asset_class_share_limit,
        after_conversion.limit_reading,
        after_conversion.value_before_limits,
        sum(after_conversion.value_before_limits) over (
            partition by after_conversion.account_id, after_conversion.issuer
        ) as issuer_value
    from after_conversion
    inner join limited_accounts on after_conversion.account_id = limited_accounts.account_id
    where after_conversion.value_before_limits > 0
),

totals as (
    select
        account_id,
        0 as step,
        sum(value_before_limits) + 1 as previous_total,
        sum(value_before_limits) as total
    from held
    group by account_id
    union all
    select
        by_class.account_id,
        max(by_class.step) + 1 as step,
        max(by_class.total) as previous_total,
        sum(
            least(
                by_class.class_value,
                coalesce(by_class.asset_class_share_limit * by_class.total, by_class.class_value)
            )
        ) as total
    from (
        select
            held.account_id,
            held.asset_class,
            held.asset_class_share_limit,
            totals.step,
            totals.total,
            sum(
                held.value_before_limits
                * least(1, coalesce(held.issuer_share_limit * totals.total / held.issuer_value, 1))
            ) as class_value
        from totals
        inner join held on totals.account_id = held.account_id
        where
            held.limit_reading = 'fixed_point'
            and totals.previous_total - totals.total > {{ unmoved }}
            and totals.step < {{ most_steps }}
        group by held.account_id, held.asset_class, held.asset_class_share_limit, totals.step, totals.total
    ) as by_class
    group by by_class.account_id
),

settled as (
    select
        account_id,
        min(total) as total
    from totals
    group by account_id
),

after_issuer_limits as (
    select
        held.*,
        settled.total,
        held.value_before_limits
        * least(1, coalesce(held.issuer_share_limit * settled.total / held.issuer_value, 1)) as issuer_limited_value
    from held
    inner join settled on held.account_id = settled.account_id
),

after_limits as (
    select
        account_id,
        asset,
        issuer_limited_value * least(
            1,
            coalesce(
                asset_class_share_limit * total
                / nullif(sum(issuer_limited_value) over (partition by account_id, asset_class), 0),
                1
            )
        ) as limited_value
    from after_issuer_limits
)

select
    priced.run_id,
    priced.business_date,
    priced.session,
    priced.account_id,
    priced.asset,
    priced.quantity,
    priced.asset_price_usd,
    priced.market_value,
    cast(
        coalesce(after_limits.limited_value, after_conversion.value_before_limits) as decimal(38, 8)
    ) as collateral_value
from priced
left join after_conversion on priced.account_id = after_conversion.account_id and priced.asset = after_conversion.asset
left join after_limits on priced.account_id = after_limits.account_id and priced.asset = after_limits.asset

with lines as (
    select
        *,
        coalesce(difference <= tolerance, false) as is_ok
    from {{ ref("int_reconciliation_line") }}
),

-- One row for each check, rulebook and account: its worst line, and how many lines were compared.
ranked as (
    select
        *,
        count(*) over (partition by check_name, rulebook_id, account_id) as line_count,
        row_number() over (
            partition by check_name, rulebook_id, account_id
            order by is_ok asc, difference desc nulls first, item asc
        ) as rank_in_check
    from lines
)

select
    run_id,
    business_date,
    session,
    check_name,
    rulebook_id,
    account_id,
    item,
    sql_amount,
    array_amount,
    difference,
    tolerance,
    line_count,
    is_ok
from ranked
where rank_in_check = 1

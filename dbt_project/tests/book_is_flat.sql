{#- Every long position is somebody's short. A row in quarantine may explain a difference, so the run goes on. -#}
{{ config(severity="warn", tags=["figures"]) }}

select
    instrument_id,
    sum(quantity) as open_quantity
from {{ ref("fct_position") }}
where run_id = {{ current_run() }}
group by instrument_id
having sum(quantity) <> 0

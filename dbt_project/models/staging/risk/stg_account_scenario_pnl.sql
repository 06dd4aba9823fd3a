select *
from {{ source('risk', 'account_scenario_pnl') }}
where run_id = {{ current_run() }}

select *
from {{ source('raw', 'collateral_balances') }}
where run_id = {{ current_run() }}

select *
from {{ source('risk', 'collateral_values') }}
where run_id = {{ current_run() }}

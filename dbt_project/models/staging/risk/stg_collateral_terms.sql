select *
from {{ source('risk', 'collateral_terms') }}
where run_id = {{ current_run() }}
